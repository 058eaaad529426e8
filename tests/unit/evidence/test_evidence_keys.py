"""Keys of the bench's results: what makes another key, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from toy_study import ARMS, TOY

from benchmarks.evidence import cells
from benchmarks.evidence.cells import Cell, cell_of, mentor_cell
from benchmarks.evidence.mentors import MENTORS
from benchmarks.evidence.study import Arm, Mentor, Panel, Study
from classroomkd import methods
from classroomkd.recipe import make_recipe, recipe_yaml

NONE, AVERAGE, KD, _ = ARMS
PANEL = TOY.panels[0]


def key(arm: Arm = AVERAGE, study: Study = TOY, panel: Panel = PANEL, **more: Any) -> str:
    return cell_of(study, panel, arm, **more).key


def changed(**changes: Any) -> Panel:
    return replace(PANEL, changes={name.replace("_", ".", 1): value for name, value in changes.items()})


@pytest.mark.parametrize(
    "study",
    [
        replace(TOY, student={"model": "convnet4"}),
        replace(TOY, train={"epochs": 4, "lr": 0.05, "momentum": 0.9, "schedule": "multistep"}),
        replace(TOY, data={**TOY.data, "val_fraction": 0.1, "split_seed": 0}),
        replace(TOY, recipe={"on_bad_mentor": "skip", "bank": "views=2"}),
        replace(TOY, train={}, panels=(Panel("small", "Small", {"train.epochs": 4}),)),
        replace(TOY, train={"epochs": 90}, arms=(NONE, replace(AVERAGE, changes={"train.epochs": 4}))),
        replace(TOY, train={"epochs": 90}, panels=(Panel("small", "Small", {"train.epochs": 4}),)),
        replace(TOY, title="Another", answers="Nothing", base="", order=3, seeds=(7,), tune=None),
    ],
)
def test_the_same_recipe_written_in_another_way_has_the_same_key(study: Study) -> None:
    arms = {arm.name: arm for arm in study.arms}
    assert key(arms["average"], study, study.panels[0]) == key()


def test_an_option_at_its_default_is_as_good_as_none() -> None:
    written = Arm("average", ({"name": "average", **methods.defaults("average", "classification")},))
    assert key(written) == key()
    assert key(Arm("other name", AVERAGE.entries, knob="", values=(3,))) == key()


@pytest.mark.parametrize(
    "more",
    [
        {"cache": "elsewhere"},
        {"workers": 3, "threads": 2},
        {"seeds": [5, 6]},
        {"device": "cpu", "check_mentors": "off"},
    ],
)
def test_places_and_machines_change_nothing(more: dict[str, Any]) -> None:
    assert key(study=replace(TOY, recipe={**TOY.recipe, **more})) == key()


@pytest.mark.parametrize("name", ["eval_every", "checkpoint_every", "log_every", "keep_checkpoints"])
def test_how_often_a_run_looks_changes_nothing(name: str) -> None:
    assert key(study=replace(TOY, train={**TOY.train, name: 2})) == key()
    assert key(NONE, panel=changed(**{f"train_{name}": 2})) == key(NONE)


def test_the_folder_of_the_data_is_not_in_the_key() -> None:
    real = replace(TOY, data={"source": "cifar100", "views": "crop_flip"}, mentors=("resnet20",))
    cell = cell_of(real, PANEL, AVERAGE)
    assert cell.said["data"]["source"] == "cifar100"
    assert "/" not in str(cell.said)


def test_data_at_every_default_have_a_key_too() -> None:
    said = cell_of(replace(TOY, data={"source": "puppets"}), PANEL, NONE).said
    assert said["data"] == {"source": "puppets"}


@pytest.mark.parametrize(
    "other",
    [
        {"study": replace(TOY, student="convnet8")},
        {"study": replace(TOY, data={**TOY.data, "split_seed": 1})},
        {"study": replace(TOY, recipe={"bank": "views=3"})},
        {"study": replace(TOY, mentors=("puppets-b", "puppets-a"))},
        {"panel": changed(train_epochs=5)},
        {"panel": changed(student_samples=50)},
        {"panel": replace(PANEL, mentors=("puppets-a",))},
        {"arm": replace(AVERAGE, mentors=("puppets-b",))},
        {"arm": Arm("average", ({"name": "average", "temperature": 3},))},
        {"arm": Arm("average", ({"name": "average"}, {"name": "at"}))},
        {"arm": KD},
        {"train.lr": 0.2},
    ],
)
def test_what_changes_a_student_changes_its_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


def test_a_whole_number_is_the_number() -> None:
    keys = {key(Arm("kd", ({"name": "kd", "temperature": value},))) for value in (4, 4.0)}
    assert keys == {key(Arm("kd", ({"name": "kd"},)))}  # 4.0 is its default


def test_what_matched_strength_sets_is_in_the_key() -> None:
    """An option that is given stands above it, native default or not: another training."""
    matched = {"name": "kd", "strength": "matched"}
    native = methods.defaults("kd")["weight"]
    said = cell_of(TOY, PANEL, Arm("kd", (matched,))).said["methods"][0][1]
    assert said["weight"] != native
    assert key(Arm("kd", ({**matched, "weight": native},))) != key(Arm("kd", (matched,)))
    assert key(Arm("kd", ({**matched, "weight": said["weight"]},))) == key(Arm("kd", (matched,)))


def all_keys() -> dict[str, str]:
    return {arm.name: key(arm) for arm in (NONE, AVERAGE, KD, Arm("both", (*AVERAGE.entries, *KD.entries)))}


def stale(before: dict[str, str]) -> set[str]:
    return {name for name, now in all_keys().items() if now != before[name]}


def test_a_raised_version_makes_the_rows_of_its_method_stale_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before, entry = all_keys(), methods.entries()["kd"]
    monkeypatch.setitem(methods.entries(), "kd", entry._replace(version=entry.version + 1))
    assert stale(before) == {"kd", "both"}


def test_where_a_version_changed_defaults_alone_rows_with_their_options_said_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, entry = all_keys(), methods.entries()["kd"]
    monkeypatch.setattr(methods.method_class("kd"), "since", entry.version)
    monkeypatch.setitem(methods.entries(), "kd", entry._replace(version=entry.version + 1))
    assert stale(before) == set()


def test_another_default_makes_the_rows_of_its_method_stale_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before, usual = all_keys(), methods.filled

    def filled(name: str, options: Any, task: str | None = None) -> dict[str, Any]:
        return usual(name, {**({"weight": 0.123} if name == "kd" else {}), **options}, task)

    monkeypatch.setattr(methods, "filled", filled)
    assert stale(before) == {"kd", "both"}


@pytest.mark.parametrize(
    "change",
    [{"train": {"epochs": 3}}, {"model": "resnet8"}, {"data": {"source": "puppets"}}, {"shuffled": True}],
)
def test_another_mentor_makes_those_it_teaches_stale_and_not_the_student_alone(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, alone = all_keys(), Arm("kd of b", KD.entries, mentors=("puppets-b",))
    untouched = key(alone)
    monkeypatch.setitem(MENTORS, "puppets-a", replace(MENTORS["puppets-a"], **change))
    assert stale(before) == {"average", "kd", "both"}
    assert key(alone) == untouched


def test_an_assistant_is_known_by_its_training_and_by_how_it_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = Mentor("helper", "resnet8", {}, {"epochs": 1}, taught_by="puppets-a")
    monkeypatch.setitem(MENTORS, "helper", helper)
    arm = Arm("takd", ({"name": "takd"},), mentors=("puppets-a", "helper"))
    before = key(arm)
    assert cell_of(TOY, PANEL, arm).recipe("").mentors[1].taught_by.parts[0][0] == "kd"
    monkeypatch.setitem(MENTORS, "helper", replace(helper, train={"epochs": 2}))
    assert key(arm) != before
    monkeypatch.setitem(MENTORS, "helper", helper)
    entry = methods.entries()["kd"]
    monkeypatch.setitem(methods.entries(), "kd", entry._replace(version=entry.version + 1))
    assert key(arm) != before


def test_an_arm_may_take_the_assistants_of_its_mentors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MENTORS, "helper", Mentor("helper", "resnet8", {}, {"epochs": 1}, taught_by="puppets-a"))
    arm = Arm("takd", ({"name": "takd"},), assistants=True)
    assert [mentor.name for mentor in cell_of(TOY, PANEL, arm).mentors] == ["puppets-a", "puppets-b", "helper"]
    other = replace(PANEL, mentors=("puppets-b",))
    assert [mentor.name for mentor in cell_of(TOY, other, arm).mentors] == ["puppets-b"]


def test_whoever_is_alone_has_no_mentors_and_no_bank() -> None:
    cell = cell_of(TOY, PANEL, NONE)
    assert (cell.mentors, "bank" in cell.said, "mentors" in cell.said) == ((), False, False)
    assert key(NONE, replace(TOY, mentors=("puppets-b",), recipe={"bank": "views=7"})) == key(NONE)
    assert key(NONE, panel=changed(bank="exact")) == key(NONE)


def test_cells_of_one_base_share_a_run() -> None:
    average, kd = cell_of(TOY, PANEL, AVERAGE), cell_of(TOY, PANEL, KD)
    assert average.base == kd.base != cell_of(TOY, PANEL, KD, **{"train.lr": 0.2}).base
    recipe = average.recipe("", grid=[average.named, kd.named])
    assert [arm.slug for arm in recipe.arms()] == [f"average-{average.key}", f"kd-{kd.key}"]


def test_a_method_may_stand_twice_in_an_arm() -> None:
    twice = Cell({"data": TOY.data, "student": "convnet4"}, ({"name": "at"}, {"name": "at", "weight": 2.0}), (), {})
    assert [entry[0] for entry in twice.said["methods"]] == ["at", "at"]


def test_a_mentor_is_trained_alone() -> None:
    cell = mentor_cell(MENTORS["resnet20-half"])
    assert cell.said["data"]["shard"] == "1/2"
    assert [entry[0] for entry in cell.said["methods"]] == ["none"]
    assert cell.mentors == ()


# A key leaves out what is at its default, so results take these for granted. With another default the same key would
# stand for another training: write the old value into the studies and mentors that want it, or remove their results.
GRANTED = """
data: {val_fraction: 0.1, test_fraction: 0.2, split_seed: 0, limit: null, test_limit: null, size: null, resize: crop,
       views: null, view_seed: 0, unreadable: refuse, train: null, val: null, test: null}
student: {weights: null, samples: null}
train: {epochs: 20, batch_size: 64, optimizer: sgd, lr: 0.05, momentum: 0.9, nesterov: false, weight_decay: 0.0005,
        no_decay: none, layer_decay: null, freeze: [], schedule: multistep, milestones: null, gamma: 0.1,
        warmup_epochs: 0.0, warmup_lr: 0.0, min_lr: 0.0, clip: null, ema: null, precision: fp32, accumulate: 1,
        label_smoothing: 0.0, drop_last: auto}
bank: auto
mentor_precision: auto
on_bad_mentor: skip
"""


def test_the_defaults_of_recipes_are_those_that_results_take_for_granted() -> None:
    plain = yaml.safe_load(recipe_yaml(make_recipe(cells.PLAIN)))
    for key, value in yaml.safe_load(GRANTED).items():
        now = {name: plain[key].get(name) for name in value} if isinstance(value, dict) else plain[key]
        assert now == value, f"the default of {key} has changed, and keys of results do not see it; see GRANTED"


def test_what_a_key_says_is_what_it_is_made_of() -> None:
    cell = cell_of(TOY, PANEL, KD)
    assert cell.key == cells._hash(cell.said)
    assert len(cell.key) == 16


def staged(**options: Any) -> Arm:
    stages = [
        {"name": "alone", "method": {"name": "none"}, "epochs": 2, "trainees": "all"},
        {"name": "then", "method": {"name": "ctslmkt", **options}, "epochs": 4, "start": "fresh"},
    ]
    peers = {"peers": [{"name": "twin", "model": "convnet4"}]}
    return Arm("ctslmkt", ({"stages": stages},), "", (), peers, ("self",))


def test_stages_are_in_the_key_with_their_options_written_out() -> None:
    cell = cell_of(TOY, PANEL, staged())
    assert cell.label == f"none-ctslmkt-{cell.key}"
    assert cell.versions == {"none": 1, "ctslmkt": 1}
    assert cell.length == 6 / 4
    recipe = cell.recipe("")
    (arm,) = recipe.arms()
    assert [training.method for training in arm.trainings] == ["none", "ctslmkt"]
    assert key(staged(weight=1.0)) == cell.key
    assert key(staged(weight=2.0)) != cell.key
    assert cell_of(TOY, PANEL, AVERAGE).length == 1.0
