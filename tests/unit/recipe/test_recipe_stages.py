"""The ``stages`` of a recipe's arm: short forms, who learns, where a stage begins, and everything that can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from classroomkd.recipe import Recipe, json_schema, make_recipe, recipe_yaml

Load = Callable[..., Recipe]
Mistakes = Callable[..., list[str]]
TEXT = "data: puppets\nstudent: convnet8\npeers: [{name: b, model: convnet8, copies: 2}]\n"
TWO = """\
methods:
  - none
  - label: two
    stages:
      - {name: pre, method: none, trainees: all, epochs: 10}
      - {name: mutual, method: {dml: {temperature: 2}}, epochs: 20, start: fresh}
"""


def one(stages: str, more: str = "") -> str:
    return f"{TEXT}methods: [dml, {{label: x, stages: {stages}}}]\n{more}"


def test_an_arm_has_its_stages_each_with_its_methods_and_trainees(load: Load) -> None:
    plain, two = load(TEXT + TWO).arms()
    assert (plain.stages, plain.trainings, plain.method) == ((), (plain,), "none")
    assert (two.label, two.slug, two.entries, two.method) == ("two", "two", (), "none then dml")
    pre, mutual = two.trainings
    assert pre.stage is not None
    assert mutual.stage is not None
    assert (pre.label, pre.stage.folder, pre.stage.start) == ("two, stage pre", "stages/pre", "fresh")
    assert (mutual.label, mutual.stage.folder, mutual.stage.epochs) == ("two", "", 20)
    assert pre.peers == mutual.peers == ("b-1", "b-2")
    assert mutual.parts[0][1]["temperature"] == 2
    assert mutual.stage.earlier == (pre.stage,)


def test_a_stage_begins_where_the_one_before_it_ends(load: Load) -> None:
    stages = (
        "[{name: a, method: none, epochs: 1}, {name: b1, method: none, trainees: b-1, epochs: 2}, "
        "{name: c, method: dml, epochs: 3}, {name: d, method: dml, epochs: 3, start: a}]"
    )
    a, b1, c, d = (training.stage for training in load(one(stages)).arms()[1].trainings)
    assert a is not None
    assert b1 is not None
    assert c is not None
    assert d is not None
    assert (a.trainees, b1.trainees, c.trainees) == (("student",), ("b-1",), ("student", "b-1", "b-2"))
    assert (a.begins_from("student"), c.start) == (None, "b1")
    assert (c.begins_from("student"), c.begins_from("b-1"), c.begins_from("b-2")) == (a, b1, None)
    assert (d.begins_from("student"), d.begins_from("b-1")) == (a, None)


def test_a_recipe_is_written_down_with_its_stages(load: Load) -> None:
    found = load(TEXT + TWO)
    again = make_recipe(yaml.safe_load(recipe_yaml(found)))
    assert again == found
    assert recipe_yaml(again) == recipe_yaml(found)
    assert "stages" not in recipe_yaml(load(TEXT + "method: dml\n"))
    assert "stages" in json_schema()["$defs"]["ArmSpec"]["properties"]


def test_one_method_may_be_stages_and_overrides_reach_into_them(load: Load) -> None:
    text = TEXT + "method: {stages: [{name: a, method: none, epochs: 1}, {name: m, method: dml, epochs: 2}]}\n"
    (arm,) = load(text, "method.stages.1.epochs=5").arms()
    assert (arm.label, arm.slug) == ("none then dml", "none-then-dml")
    assert [training.stage.epochs for training in arm.trainings if training.stage] == [1, 5]


def test_a_file_to_begin_from_is_found_beside_the_recipe(load: Load, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"")
    (_, arm) = load(one("[{name: a, method: none, epochs: 1, start: net.safetensors}]")).arms()
    (stage,) = [training.stage for training in arm.trainings]
    assert stage is not None
    assert stage.begins_from("student") == str(tmp_path / "net.safetensors")


def test_schedules_and_milestones_are_of_the_stage(load: Load, mistakes: Mistakes) -> None:
    stages = "[{name: a, method: none, epochs: 5}, {name: m, method: none, epochs: 30}]"
    assert load(one(stages, "train: {milestones: [0.5]}\n")).notes() == []
    (found,) = mistakes(one(stages, "train: {milestones: [8], epochs: 10}\n"))
    assert found.startswith("a.yaml:4: methods.1.stages.0.epochs: milestone 8 is not reached in 5 epochs")
    noted = "[{name: m, method: {name: dml, schedule: {warmup: {epochs: 4}}}, epochs: 2}]"
    (note,) = load(one(noted)).notes()
    assert "(4 of 2 epochs)" in note


A = "{name: a, method: none, epochs: 1}"


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ("[{name: a, method: none}]", "stages.0.epochs: is missing; say how many passes"),
        ("[{name: a, epochs: 1}]", "stages.0.method: is missing; name what teaches"),
        ("[{method: none, epochs: 1}]", "a stage has no 'name'"),
        ("[{name: a, method: none, epochs: 0}]", "stages.0.epochs = 0: must be at least 1"),
        ("[{name: a, method: none, epochs: 1, lr: 3}]", "stages.0.lr: unknown key"),
        ("[]", "must be a list of at least 1"),
        ("[{name: a/b, method: none, epochs: 1}]", "letters, digits, _ and - only"),
        ("[{name: fresh, method: none, epochs: 1}]", "means a start from no stage"),
        (f"[{A}, {A.replace('a,', 'A,')}]", "another stage of this arm is called so"),
        (f"[{A}, {{name: m, method: none, epochs: 1, start: b}}]", "there is no such stage; before it there are a"),
        ("[{name: a, method: none, epochs: 1, start: a}]", "is this stage itself; it is the first"),
        ("[{name: a, method: none, epochs: 1, start: m}, {name: m, method: none, epochs: 1}]", "comes later"),
        ("[{name: a, method: none, epochs: 1, start: x/no.pth}]", "there is no such file"),
        ("[{name: a, method: none, trainees: c, epochs: 1}]", "there is no network 'c' to train"),
        ("[{name: a, method: none, trainees: [b, b-1], epochs: 1}]", "names a network twice"),
        ("[{name: a, method: none, trainees: b, epochs: 1}]", "the last stage must train the student"),
        ("[{name: a, method: dml, trainees: student, epochs: 1}]", "'dml' needs at least 1 peer(s)"),
        ("[{name: a, method: {name: dml, peers: [b]}, epochs: 1}]", "is said by the stage itself"),
        ("[{name: a, method: kdd, epochs: 1}]", "there is no method 'kdd'"),
        ("[{name: a, method: {name: dml, order: none}, epochs: 1}]", "stages.0.method.order = 'none': must be"),
        ("[{name: a, method: {stages: [{name: q, method: none, epochs: 1}]}, epochs: 1}]", "has no 'name'"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_with_its_place(mistakes: Mistakes, stages: str, sentence: str) -> None:
    (found,) = mistakes(one(stages))
    assert found.startswith("a.yaml:4: methods.1")
    assert sentence in found


@pytest.mark.parametrize(
    ("arm", "sentence"),
    [
        (f"{{name: dml, stages: [{A}]}}", "methods.1.name: stands beside 'stages'"),
        (f"{{temperature: 2, stages: [{A}]}}", "methods.1.temperature: stands beside 'stages'"),
        (f"{{label: x, peers: [b], stages: [{A}]}}", "methods.1.peers: stands beside 'stages'"),
        (f"[dml, {{stages: [{A}]}}]", "stages are an arm by themselves"),
    ],
)
def test_what_stands_beside_stages_is_refused(mistakes: Mistakes, arm: str, sentence: str) -> None:
    found = mistakes(f"{TEXT}methods: [dml, {arm}]\n")
    assert any(sentence in line for line in found), found


def test_methods_that_cannot_teach_several_alike_are_refused(mistakes: Mistakes) -> None:
    text = "mentors: [vgg8]\n"
    (found,) = mistakes(one("[{name: a, method: fitnet, trainees: all, epochs: 1}]", text))
    assert "'fitnet' cannot teach several networks each by itself: it reads features" in found
    (found,) = mistakes(one("[{name: a, method: mmkd, trainees: all, epochs: 1}]", text))
    assert "cannot teach several networks each by itself" in found


def test_a_file_cannot_be_the_start_of_several_networks(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"")
    (found,) = mistakes(one("[{name: a, method: dml, epochs: 1, start: net.pth}]"))
    assert "a file is of one network, and this stage trains several" in found


def test_a_stage_has_as_many_teachers_as_its_method_trains(load: Load, mistakes: Mistakes) -> None:
    text = TEXT.replace("]", ", {name: t, model: vgg8, role: teacher}]")
    stages = "{name: pre, method: none, trainees: t, epochs: 1}, {name: both, method: kdml, epochs: 1}"
    *_, both = load(f"{text}method: {{stages: [{stages}]}}\n").trainings()
    assert both.peers == ("b-1", "b-2", "t")
    (found,) = mistakes(f"{text}methods: [kdml, {{stages: [{{name: a, method: dml, trainees: all, epochs: 1}}]}}]\n")
    assert "'dml' train(s) no teacher(s), here it has t; name who learns" in found


def test_peers_that_only_a_stage_takes_are_not_idle(load: Load, mistakes: Mistakes) -> None:
    stages = "[{name: a, method: none, trainees: all, epochs: 1}]"
    assert load(f"{TEXT}method: {{stages: {stages}}}\n").notes() == []
    (found,) = mistakes(f"{TEXT}method: {{stages: [{A}]}}\n")
    assert "no arm takes b-1, b-2" in found


def test_an_assistant_has_no_stages(mistakes: Mistakes) -> None:
    taught = f"{{mentors: [vgg8], method: {{stages: [{A}]}}}}"
    found = mistakes(f"{TEXT}mentors: [vgg8, {{name: m, model: vgg8, taught_by: {taught}}}]\nmethods: [dml, takd]\n")
    assert any("has no 'name'" in line for line in found)


SELF = (
    "methods: [dml, {label: x, stages: [{name: pre, method: none, trainees: [student, b-1], epochs: 1}, "
    "{name: kd, method: {name: kd, mentor: me}, epochs: 1}]}]\n"
)


def test_a_self_is_a_mentor_of_later_stages_alone(load: Load, mistakes: Mistakes) -> None:
    found = load(TEXT + "mentors: [vgg8, {name: me, from: pre.student}]\n" + SELF)
    assert [m.name for m in found.mentors] == ["vgg8"]
    assert [(m.name, m.model, m.made_from) for m in found.selves] == [("me", "convnet8", "pre.student")]
    again = make_recipe(yaml.safe_load(recipe_yaml(found)))
    assert again == found
    assert "from" not in recipe_yaml(load(TEXT + "mentors: vgg8\nmethods: [dml, kd]\n"))
    for method in (
        "{name: kd, mentor: me}",
        "{label: y, stages: [{name: pre, method: {name: kd, mentor: me}, epochs: 1}]}",
    ):
        wrong = mistakes(
            TEXT + "mentors: [vgg8, {name: me, from: pre.student}]\n" + SELF.replace("dml", f"dml, {method}")
        )
        assert len(wrong) == 1
        assert "no mentor 'me'" in wrong[0]


def test_a_stage_alone_is_the_self_of_each_of_its_trainees(load: Load) -> None:
    text = TEXT + "mentors: [{name: me, from: pre}]\n" + SELF.replace("mentor: me", "mentor: me-b-1")
    found = load(text)
    assert [m.made_from for m in found.selves] == ["pre.student", "pre.b-1"]
    assert make_recipe(yaml.safe_load(recipe_yaml(found))) == found


@pytest.mark.parametrize(
    ("mentor", "sentence"),
    [
        ("{name: me, from: pra.student}", "no arm has a stage 'pra' (did you mean 'pre'?); there are kd, pre"),
        ("{name: me, from: kd.student}", "'kd' is an arm's last stage: no later one could be taught"),
        ("{name: me, from: pre.c}", "there is no network 'c'; there are student, b-1, b-2"),
        ("{name: me, from: pre.b-2}", "stage 'pre' does not train b-2, but b-1, student"),
        ("{name: me, from: pre.student, model: vgg8}", "is convnet8 by the stage that it is made from"),
        ("{name: me, from: pre.student, train: {epochs: 3}}", "mentors.0.train: stands beside 'from'"),
        ("{name: me, from: pre.student, weights: x.pth}", "mentors.0.weights: stands beside 'from'"),
        ("{name: me, from: 3}", "mentors.0.from = 3: must be text"),
        ("{name: me, from: pre.student}, vgg8", "mentors.1: stands behind mentors.0, which is made from a stage"),
        (
            "vgg8, {name: a, model: vgg8, taught_by: me}, {name: me, from: pre.student}",
            "mentors.1.taught_by: there is no mentor 'me'",
        ),
    ],
)
def test_what_is_wrong_with_a_self_is_said_with_its_place(mistakes: Mistakes, mentor: str, sentence: str) -> None:
    found = mistakes(f"{TEXT}mentors: [{mentor}]\n{SELF}")
    assert any(sentence in line for line in found), found


def test_a_self_without_any_stage_is_refused(mistakes: Mistakes) -> None:
    (found,) = mistakes(TEXT + "mentors: [vgg8, {name: me, from: pre.student}]\nmethods: [dml, kd]\n")
    assert "mentors.1.from = 'pre.student': no arm has a stage 'pre': none has stages" in found


LEARN, TEACH = (
    "{name: learn, method: amtml, epochs: 1}",
    "{name: teach, method: {name: amtml, adapter: frozen}, epochs: 1",
)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (f"[{TEACH}}}]", "first trainee, has learned, and does not begin from one; put such a stage before it"),
        (f"[{LEARN.replace('amtml', '{name: amtml, rule: reference}')}, {TEACH}}}]", "by the same rule"),
        (f"[{{name: learn, method: [amtml, at], epochs: 1}}, {TEACH}}}]", "of this method alone"),
        (f"[{LEARN}, {{name: t, method: [kd, {{name: amtml, adapter: frozen}}], epochs: 1}}]", "of this method alone"),
        (f"[{LEARN}, {TEACH}, start: fresh}}]", "does not begin from one; start: learn"),
        (f"[{LEARN}, {{name: kd, method: kd, epochs: 1}}, {TEACH}}}]", "does not begin from one; start: learn"),
    ],
)
def test_what_a_method_goes_on_with_is_a_stage_of_the_same_method(
    mistakes: Mistakes, stages: str, sentence: str
) -> None:
    text = f"data: puppets\nstudent: convnet8\nmentors: [vgg8]\nmethods: [none, {{label: x, stages: {stages}}}]\n"
    (found,) = mistakes(text)
    assert sentence in found


def test_a_stage_may_go_on_with_one_that_is_not_the_last(load: Load, mistakes: Mistakes) -> None:
    between = f"[{LEARN}, {{name: kd, method: kd, epochs: 1}}, {TEACH}, start: learn}}]"
    text = "data: puppets\nstudent: convnet8\nmentors: [vgg8]\n"
    assert len(load(f"{text}methods: [none, {{label: x, stages: {between}}}]\n").arms()[1].trainings) == 3
    (found,) = mistakes(f"{text}method: {{name: amtml, adapter: frozen}}\n")
    assert "'amtml' so goes on with what an earlier stage has learned; write two: stages:" in found


def test_a_method_goes_on_with_the_same_mentors_and_the_same_trainee(mistakes: Mistakes) -> None:
    text = "data: puppets\nstudent: convnet8\npeers: convnet8\nmentors: [vgg8, {name: s, from: learn.student}]\n"
    (found,) = mistakes(f"{text}methods: [dml, {{label: x, stages: [{LEARN}, {TEACH}}}]}}]\n")
    assert "with the same mentors" in found
    other = LEARN.replace("epochs: 1", "epochs: 1, trainees: convnet8")
    text = "data: puppets\nstudent: convnet8\npeers: convnet8\nmentors: [vgg8]\n"
    (found,) = mistakes(f"{text}methods: [dml, {{label: x, stages: [{other}, {TEACH}}}]}}]\n")
    assert "first trainee, has learned" in found


def test_a_network_that_the_start_did_not_train_is_as_the_last_stage_left_it(load: Load) -> None:
    stages = (
        "[{name: a, method: none, trainees: b-1, epochs: 1}, {name: s, method: none, epochs: 1, start: fresh}, "
        "{name: c, method: dml, trainees: all, epochs: 1}]"
    )
    *_, last = load(one(stages)).arms()[1].trainings
    assert last.stage is not None
    begun = {name: last.stage.begins_from(name) for name in ("student", "b-1", "b-2")}
    assert {name: getattr(stage, "name", stage) for name, stage in begun.items()} == {
        "student": "s", "b-1": "a", "b-2": None,
    }  # fmt: skip


@pytest.mark.parametrize("named", ["{name: b-1, from: a.student}", "{name: b, from: a}"])
def test_a_self_has_a_name_of_its_own(mistakes: Mistakes, named: str) -> None:
    """The peer ``b-1`` is called so; and ``b-student`` is what the student's self of ``b`` would be called."""
    stages = "[{name: a, method: none, trainees: [student, b-1], epochs: 1}, {name: t, method: average, epochs: 1}]"
    peers = "peers: [{name: b, model: convnet8, copies: 2}, {name: b-student, model: convnet8}]\n"
    arms = f"methods: [dml, {{label: x, stages: {stages}}}]\n"
    found = mistakes(f"data: puppets\nstudent: convnet8\n{peers}mentors: [vgg8, {named}]\n{arms}")
    assert any("as a mentor, like another network of the recipe; give it another name" in one for one in found)


def test_a_teacher_is_nobodys_peer_in_a_stage_and_never_in_the_students_place(mistakes: Mistakes) -> None:
    head = "data: puppets\nstudent: convnet8\n"
    teacher, last = "{name: t, model: convnet8, role: teacher}", "{name: z, method: none, epochs: 1}"
    alone = f"[{{name: a, method: [kdml, dml], trainees: [student, t], epochs: 1}}, {last}]"
    found = mistakes(f"{head}peers: [{teacher}]\nmethods: [none, {{label: x, stages: {alone}}}]\n")
    assert any("'dml' needs at least 1 peer(s) beside its first trainee, here it has 0" in one for one in found)
    two = f"[{{name: a, method: kdml, trainees: [b, t], epochs: 1}}, {last}]"
    found = mistakes(
        f"{head}peers: [{teacher}, {{name: b, model: convnet8}}]\nmethods: [none, {{label: x, stages: {two}}}]\n"
    )
    assert any("t is a teacher" in one and "write it behind b in peers:" in one for one in found)


LATER = "{name: m, method: ctslmkt, epochs: 1}"
ALL = "{name: a, method: none, trainees: all, epochs: 1}"


def selves(made: str = "a", stages: str = f"[{ALL}, {LATER}]", peer: str = "{name: b, model: convnet4}") -> str:
    """A recipe in which frozen selves teach."""
    return (
        f"data: puppets\nstudent: convnet4\npeers: [{peer}]\nmentors: [{{name: self, from: {made}}}]\n"
        f"method: {{label: x, stages: {stages}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (selves("a.student"), "ctslmkt: no mentor is what b was after an earlier stage; make one of every network"),
        (selves("''"), "mentors.0.from = '': must be some text"),
        (selves("3"), "mentors.0.from = 3: must be text"),
        (selves("a.student}, {name: self, from: a.b"), "mentors.1: is called 'self' like mentors.0"),
        (selves("a."), "mentors.0.from = 'a.': names a stage, or one of its networks"),
        (selves(".b"), "mentors.0.from = '.b': names a stage, or one of its networks"),
        (selves("z"), "mentors.0.from = 'z': no arm has a stage 'z'; there are a, m"),
        (
            selves("a.b", f"[{ALL}, {{name: m, method: kd, epochs: 1}}]", "{name: b, model: convnet4, copies: 2}"),
            "there is no network 'b', but copies of it: b-1 and b-2",
        ),
        (selves(stages="[]"), "method.stages = []: must be a list of at least 1"),
        (selves(stages="3"), "method.stages = 3: must be a list"),
        (selves(stages=f"[{ALL.replace('all', '[]')}, {LATER}]"), "stages.0.trainees = []: must be 'all' or a list"),
        (selves(stages=f"[{ALL.replace('all', '3')}, {LATER}]"), "stages.0.trainees = 3: must be 'all' or a list"),
        (selves(stages=f"[{ALL.replace('all', '[3]')}, {LATER}]"), "stages.0.trainees = [3]: must be"),
        (selves(stages=f"[{ALL.replace('all', 'c')}, {LATER}]"), "there is no network 'c' to train"),
        (selves(stages=f"[{ALL}, {LATER[:-1]}, start: ''}}]"), "stages.1.start = '': must be some text"),
        (selves(stages=f"[{ALL}, {{name: m, method: {{stages: [{A}]}}, epochs: 1}}]"), "has no 'name' but stages"),
    ],
)
def test_one_mistake_of_selves_and_stages_is_said_once(mistakes: Mistakes, text: str, sentence: str) -> None:
    (found,) = mistakes(text)
    assert sentence in found


def test_a_self_of_an_arm_without_stages_is_said_once(mistakes: Mistakes) -> None:
    text = "data: puppets\nstudent: convnet4\nmentors: [{name: self, from: a}]\nmethod: kd\n"
    (found,) = mistakes(text)
    assert "no arm has a stage 'a': none has stages" in found
    staged = f"{{label: x, stages: [{A}, {{name: m, method: kd, epochs: 1}}]}}"
    (found,) = mistakes(text.replace("method: kd", f"methods: [kd, {staged}]"))
    assert "mentors: too few for 'kd'" in found
    assert "frozen selves teach in stages after their own alone" in found
