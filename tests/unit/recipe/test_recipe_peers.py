"""The ``peers`` of a recipe: short forms, copies, which arm takes whom, and everything that can be wrong with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from classroomkd import methods
from classroomkd.recipe import Recipe, make_recipe, recipe_yaml

Load = Callable[..., Recipe]
Mistakes = Callable[..., list[str]]
TEXT = "data: puppets\nstudent: convnet8\n"


def test_copies_are_written_out_and_every_arm_has_its_own(load: Load) -> None:
    found = load(
        TEXT + "peers: [{name: b, model: convnet8, copies: 2}, dwnet8]\n"
        "methods: [none, dml, {name: dml, peers: [b]}, {name: dml, peers: [b-2, dwnet8], label: two}]\n"
    )
    assert [(peer.name, peer.model, peer.copies) for peer in found.peers] == [
        ("b-1", "convnet8", 1), ("b-2", "convnet8", 1), ("dwnet8", "dwnet8", 1),
    ]  # fmt: skip
    arms = {arm.label: arm.peers for arm in found.arms()}
    assert arms == {
        "none": (),
        "dml peers=b-1,b-2,dwnet8": ("b-1", "b-2", "dwnet8"),
        "dml peers=b-1,b-2": ("b-1", "b-2"),
        "two": ("b-2", "dwnet8"),
    }
    assert found.notes() == []


def test_one_peer_may_be_its_model_alone(load: Load) -> None:
    (peer,) = load(TEXT + "peers: convnet16\nmethod: dml\n").peers
    assert (peer.name, peer.model, peer.role, peer.train) == ("convnet16", "convnet16", "peer", None)


def test_a_recipe_is_written_down_with_its_peers_and_without_the_key_where_it_has_none(load: Load) -> None:
    text = TEXT + "peers: [{name: b, model: convnet8, copies: 2, train: {lr: 0.02}}]\nmethods: [none, dml]\n"
    found = load(text)
    again = make_recipe(yaml.safe_load(recipe_yaml(found)))
    assert again == found
    assert recipe_yaml(again) == recipe_yaml(found)
    assert "peers" not in recipe_yaml(load(TEXT + "method: none\n"))


def test_the_table_says_how_many_a_method_must_have() -> None:
    for name, entry in methods.METHODS.items():
        needs = methods.create(name).needs
        assert (entry.peers, entry.teachers) == (needs.peers[0], needs.teachers), name


TEACHER = "{name: t, model: convnet16, role: teacher}"


def test_a_method_that_trains_its_teacher_takes_it_beside_the_peers(load: Load) -> None:
    found = load(
        TEXT + f"mentors: [vgg8]\npeers: [{{name: b, model: convnet8, copies: 2}}, {TEACHER}]\n"
        "methods: [dml, kdml, {name: kdml, peers: [t, b-1], label: two}, {name: kdml, teacher: frozen, label: ice}]\n"
    )
    arms = {arm.label: arm.peers for arm in found.arms()}
    assert list(arms.values()) == [("b-1", "b-2"), ("b-1", "b-2", "t"), ("t", "b-1"), ("b-1", "b-2")]
    assert found.notes() == []


@pytest.mark.parametrize(
    "rest", [f"peers: [{TEACHER}]\nmethod: kdml", "mentors: [vgg8]\nmethod: {name: kdml, teacher: frozen}"]
)
def test_one_student_is_said_to_have_nobody_to_learn_with(load: Load, rest: str) -> None:
    assert load(f"{TEXT}{rest}\n").notes() == [
        "peers: 'kdml' trains one student, which has nobody to learn with; add a peer"
    ]


def test_a_ramp_that_is_the_whole_training_is_said_to_be(load: Load) -> None:
    text = TEXT + f"peers: [convnet8, {TEACHER}]\ntrain: {{epochs: 10}}\nmethod: {{name: kdml, ramp: 20}}\n"
    (note,) = load(text).notes()
    assert note.startswith("method kdml: schedule warmup (20 of 10 epochs) rises until the training ends")


def test_who_is_exported_is_written_down_only_where_it_is_not_the_student(load: Load) -> None:
    peers = TEXT + "peers: [{name: b, model: convnet8, copies: 2}]\nmethod: dml\n"
    assert load(peers).export == "student"
    assert "export" not in recipe_yaml(load(peers))
    found = load(peers + "export: b-2\n")
    assert make_recipe(yaml.safe_load(recipe_yaml(found))) == found
    assert found.export == "b-2"


def test_a_bank_beside_peers_alone_is_said_to_store_nothing(load: Load) -> None:
    (note,) = load(TEXT + "peers: convnet8\nmethod: dml\nbank: exact\n").notes()
    assert "bank has no effect: peers change as they learn" in note
    assert load(TEXT + "peers: convnet8\nmethod: dml\n").notes() == []


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("methods: [none, dml]", "a.yaml: peers: too few for 'dml'; add some, for example peers: ["),
        ("method: {name: dml, order: gauss_seidel}", "peers: too few for 'dml'"),
        ("peers: [{name: b-best, model: convnet8}]\nmethod: dml", "files of other weights of a network end so"),
        ("peers: convnet8\nmethods: [none, tfkd]", "peers: no arm takes convnet8: add a method that does (dml)"),
        ("peers: [convnet8, convnet4]\nmethod: {name: dml, peers: [convnet4]}", "no arm takes convnet8"),
        ("peers: convnet8\nmethods: [dml, {name: none, peers: [convnet8]}]", "'none' takes no peers: leave it out"),
        ("peers: convnet8\nmethod: {name: dml, peers: [convnet4]}", "there is no peer 'convnet4'"),
        ("peers: convnet8\nmethod: {name: dml, peers: [convnet8, convnet8]}", "names a peer twice"),
        ("peers: [convnet8, convnet8]\nmethod: dml", "is called 'convnet8' like peers.0; give it a name"),
        ("peers: [{name: b, model: convnet8, copies: 2}, {name: b-2, model: convnet4}]\nmethod: dml", "called 'b-2'"),
        ("peers: [{name: student, model: convnet8}]\nmethod: dml", "is called 'student'"),
        ("peers: [{name: a.b, model: convnet8}]\nmethod: dml", "letters, digits, _ and - only"),
        ("mentors: [vgg8]\npeers: [{name: vgg8, model: convnet8}]\nmethods: [kd, dml]", "like a mentor"),
        ("peers: [{name: t, model: convnet8, role: teacher}]\nmethod: {name: dml, peers: [t]}", "'t' is a teacher"),
        ("peers: [{name: t, model: convnet8, role: teacher}]\nmethod: dml", "needs at least 1 peer(s), here it has 0"),
        (
            "methods: [none, kdml]",
            "example peers: [{name: b, model: resnet8}, {name: t, model: resnet20, role: teacher}]",
        ),
        ("peers: [convnet8, convnet4]\nmethod: kdml", "give one of the peers (convnet8, convnet4) role: teacher"),
        (f"peers: [convnet8, {TEACHER}]\nmethods: [dml, {{name: kdml, peers: [convnet8]}}]", "name t among its peers"),
        (
            f"peers: [convnet8, {TEACHER}, {{name: u, model: convnet4, role: teacher}}]\nmethod: kdml",
            "trains 1 teacher(s), here it has t, u: name them, peers: [t, convnet8]",
        ),
        (f"peers: [convnet8, {TEACHER}]\nmethod: dml", "no arm takes t: add a method that does (kdml)"),
        (
            f"mentors: [vgg8]\npeers: [convnet8, {TEACHER}]\n"
            "methods: [kdml, {name: kdml, teacher: frozen, peers: [t], label: other}]",
            "'t' is a teacher; 'kdml' takes peers",
        ),
        ("peers: [{name: b, model: convnet8, copies: 2}]\nmethod: dml\nexport: b", "there are student, b-1, b-2"),
        (
            "peers: [convnet8]\nmethod: dml\nexport: convent8",
            "export: there is no trainee 'convent8' (did you mean 'convnet8'",
        ),
        ("method: none\nexport: b", "there is the student alone, since the recipe has no peers"),
        ("peers: convnet8\nmethod: {name: kdml, teacher: frozen}", "mentors: too few for 'kdml'"),
        ("peers: [{name: b, model: convnet9}]\nmethod: dml", "convnet9"),
        ("peers: [{name: b, model: convnet8, copies: 0}]\nmethod: dml", "must be at least 1"),
        ("peers: [{name: b, model: convnet8, train: {epochs: 3}}]\nmethod: dml", "epochs: unknown key"),
        ("peers: [{name: b, model: convnet8, weights: none.pth}]\nmethod: dml", "there is no such file"),
        ("peers: convnet8\nmentors: [vgg8]\nmethod: {name: kd, peers: [convnet8]}", "'kd' takes no peers"),
        (
            "peers: convnet8\nmentors: [vgg8, {name: b, model: vgg8, taught_by: {mentors: [vgg8], method: dml}}]\n"
            "methods: [kd, dml]",
            "peers are trained beside the student, not beside an assistant",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(mistakes: Mistakes, rest: str, sentence: str) -> None:
    found = mistakes(f"{TEXT}{rest}\n")
    assert len(found) == 1 or "assistant" in sentence, found
    assert any(sentence in one for one in found), found
