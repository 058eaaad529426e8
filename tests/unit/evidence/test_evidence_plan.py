"""What a study wants trained: the order, the choices, and what they may depend on. Nothing is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from toy_study import ARMS, TOY, TWO_PANELS, finish, put, store

from benchmarks.evidence.cells import Cell, cell_of
from benchmarks.evidence.plan import chosen, rows, wanted
from benchmarks.evidence.prepared import prepare
from benchmarks.evidence.protocol import table
from benchmarks.evidence.queue import Queue
from benchmarks.evidence.study import DEFAULTS, Arm, Panel, Study, Tune
from classroomkd.errors import UserError

NONE, AVERAGE, KD, PLAIN = ARMS
SMALL = TOY.panels[0]


def option(cell: Cell, name: str = "temperature") -> Any:
    return cell.said["methods"][0][1].get(name)


def rate(cell: Cell) -> float:
    return cell.recipe("").train.lr


def setting(study: Study, panel: str, arm: Arm, results: Any, name: str = "toy") -> Any:
    return chosen(name, study.panel(panel), arm, results)


@pytest.mark.usefixtures("studies")
def test_the_order_is_rate_candidates_rows_curve(tmp_path: Path) -> None:
    asked = finish(store(tmp_path))
    # The rate of the student alone is among its candidates, and "plain kd" may be what "kd" chose: trained once.
    assert [what for what, _ in groupby(w.what for w in asked)] == ["rate", "tune", "row", "curve"]
    seeds = {w.what: w.seeds for w in asked}
    assert seeds == {"rate": (100, 101), "tune": (100, 101), "row": (0, 1, 2), "curve": (0, 1, 2)}


@pytest.mark.usefixtures("studies")
def test_a_panel_may_have_some_of_the_arms(tmp_path: Path) -> None:
    few = replace(TOY, panels=(replace(SMALL, arms=("none", "plain kd")),))
    asked = {w.cell.grid[0]["name"] for w in finish(store(tmp_path), few)}
    assert asked == {"none", "kd"}
    assert [arm.name for arm in few.within(few.panels[0])] == ["none", "plain kd"]
    assert few.within(SMALL) == few.arms


def test_the_student_alone_may_have_keys_of_its_own() -> None:
    panel = replace(SMALL, changes={"train.epochs": 4}, alone={"train.epochs": 7, "data.unlabelled": None})
    cells = [cell_of(TOY, panel, arm) for arm in ARMS[:2]]
    assert [cell.recipe("").train.epochs for cell in cells] == [7, 4]
    assert cells[1].key == cell_of(TOY, replace(panel, alone={}), ARMS[1]).key


def test_prepared_pictures_are_found_by_name_and_their_place_is_in_no_key(tmp_path: Path) -> None:
    panel = replace(SMALL, changes={"data.unlabelled": "images:@drawn"})
    cell = cell_of(TOY, panel, ARMS[1])
    assert cell.prepared == ["drawn"]
    (tmp_path / "drawn").mkdir()
    recipe = cell.recipe("", prepared=tmp_path)
    assert recipe.data.unlabelled == f"images:{tmp_path / 'drawn'}"
    assert cell.said["data"]["unlabelled"] == "images:@drawn"
    with pytest.raises(UserError, match="nothing is prepared by the name 'drawn'"):
        prepare(cell.prepared, tmp_path, tmp_path / "here")


@pytest.mark.usefixtures("studies")
def test_nothing_is_asked_for_before_what_it_depends_on(tmp_path: Path) -> None:
    results = store(tmp_path)
    assert {w.what for w in wanted("toy", TOY, results)} == {"rate"}
    assert rows("toy", TOY, SMALL, results) == []
    for w in list(wanted("toy", TOY, results)):
        put(results, w.cell, s100=0.4, s101=0.4)
    known = Counter(w.what for w in wanted("toy", TOY, results))
    assert known == {"rate": 2, "tune": 9, "row": 1}  # "plain kd" has nothing to tune
    assert [row.arm.name for row in rows("toy", TOY, SMALL, results)] == ["plain kd"]


@pytest.mark.usefixtures("studies")
def test_every_tuned_arm_has_the_same_candidates_and_tuning_seeds(tmp_path: Path) -> None:
    results = store(tmp_path)
    finish(results)
    tried = [w for w in wanted("toy", TOY, results) if w.what == "tune"]
    assert {w.seeds for w in tried} == {(100, 101)}
    assert Counter(w.cell.label.partition("-")[0] for w in tried) == {"none": 3, "average": 3, "kd": 3}
    assert [option(w.cell) for w in tried if w.cell.label.startswith("kd")] == [1, 2, 4]
    assert {rate(w.cell) for w in tried} == {0.05}


@pytest.mark.usefixtures("studies")
def test_the_rate_is_the_best_of_the_student_alone_for_all(tmp_path: Path) -> None:
    results = store(tmp_path)
    finish(results, val=lambda cell, seed: 0.6 if rate(cell) == 0.1 else 0.5)
    assert {rate(row.cell) for row in rows("toy", TOY, SMALL, results)} == {0.1}
    assert {arm.name: setting(TOY, "small", arm, results)["train.lr"] for arm in TOY.arms} == dict.fromkeys(
        [arm.name for arm in TOY.arms], 0.1
    )


@pytest.mark.usefixtures("studies")
def test_the_choice_is_made_on_the_validation_part_only(tmp_path: Path) -> None:
    """What is best on the test part is worst on the validation part."""
    results = store(tmp_path)
    val = {1: 0.3, 2: 0.6, 4: 0.5}
    finish(
        results,
        test=lambda cell, seed: 1 - val.get(option(cell), 0.5),
        val=lambda cell, seed: val.get(option(cell), 0.5),
    )
    assert setting(TOY, "small", KD, results) == {"train.lr": 0.05, "temperature": 2}
    found = {row.arm.name: option(row.cell) for row in rows("toy", TOY, SMALL, results)}
    assert (found["average"], found["kd"]) == (2, 2)


@pytest.mark.usefixtures("studies")
def test_rows_seeds_are_not_chosen_on_and_tuning_seeds_are_in_no_table(tmp_path: Path) -> None:
    """The other seeds of a candidate, however good, do not count; nor does a table show what was tuned on."""
    results = store(tmp_path)

    def val(cell: Cell, seed: int) -> float:
        return {1: 0.5, 2: 0.6, 4: 0.4}.get(option(cell), 0.5) if seed >= 100 else 0.1

    finish(results, test=lambda cell, seed: 0.9 if seed >= 100 else 0.5, val=val)
    assert setting(TOY, "small", KD, results)["temperature"] == 2
    shown = table("toy", TOY, SMALL, results)
    assert {seed for line in shown.lines for seed in line.scores} == {0, 1, 2}
    assert {score for line in shown.lines for score in line.scores.values()} == {0.5}
    assert {seed for scores in shown.curve.values() for seed in scores} == {0, 1, 2}
    assert shown.lacking == []


@pytest.mark.usefixtures("studies")
def test_what_diverged_loses_and_is_not_tried_again(tmp_path: Path) -> None:
    results = store(tmp_path)

    def val(cell: Cell, seed: int) -> float | None:
        if option(cell) == 1 and seed == 101:
            return None  # the best by far, but once it diverged
        return {1: 0.9, 2: 0.3, 4: 0.4}.get(option(cell), 0.5)

    finish(results, val=val)
    assert setting(TOY, "small", KD, results)["temperature"] == 4
    assert not any(results.missing(w.cell, w.seeds) for w in wanted("toy", TOY, results))
    line = table("toy", TOY, SMALL, results).line("kd")
    assert line is not None
    assert line.failures == {}


@pytest.mark.usefixtures("studies")
def test_failures_of_the_tuning_are_not_told_of_a_row(tmp_path: Path) -> None:
    results = store(tmp_path)
    finish(results, val=lambda cell, seed: None if cell.label.startswith("kd") and seed in (101, 2) else 0.5)
    line = table("toy", TOY, SMALL, results).line("kd")
    assert line is not None
    assert (set(line.scores), set(line.failures)) == ({0, 1}, {2})


@pytest.mark.usefixtures("studies")
def test_a_cut_plan_goes_on_where_it_was(tmp_path: Path) -> None:
    results = store(tmp_path)
    whole = finish(store(tmp_path / "whole"))
    for _ in range(5):
        first = next(w for w in wanted("toy", TOY, results) if results.missing(w.cell, w.seeds))
        put(results, first.cell, **{f"s{seed}": 0.5 for seed in first.seeds})
    half = next(w for w in wanted("toy", TOY, results) if results.missing(w.cell, w.seeds))
    put(results, half.cell, s100=0.5)
    again = finish(store(tmp_path))  # read anew from the files
    assert [(w.cell.key, w.what) for w in again] == [(w.cell.key, w.what) for w in whole[5:]]
    assert again[0].seeds == (101,)


def test_a_panel_takes_the_choices_of_another(tmp_path: Path, studies: dict[str, Study]) -> None:
    studies["toy"] = TWO_PANELS
    results = store(tmp_path)
    asked = finish(results, TWO_PANELS, val=lambda cell, seed: {1: 0.3, 2: 0.6, 4: 0.5}.get(option(cell), 0.5))
    large = [w for w in asked if w.cell.recipe("").student.model == "convnet8"]
    assert {w.what for w in large} == {"row", "curve"}
    for arm in TOY.arms:
        assert setting(TWO_PANELS, "large", arm, results) == setting(TWO_PANELS, "small", arm, results)
    assert [option(row.cell) for row in rows("toy", TWO_PANELS, TWO_PANELS.panel("large"), results)][1:3] == [2, 2]


def test_choices_may_come_from_another_study(tmp_path: Path, studies: dict[str, Study]) -> None:
    extra = Arm("random", ({"name": "random"},), knob="")
    other = replace(TOY, panels=(Panel("far", "Far", {"student.samples": 50}, tuned="toy/small"),), arms=(*ARMS, extra))
    studies["other"] = other
    results = store(tmp_path)
    assert list(wanted("other", other, results)) == []  # toy comes first
    finish(results, val=lambda cell, seed: 0.6 if rate(cell) == 0.1 else 0.5)
    assert {w.what for w in finish(results, other, name="other")} == {"row", "curve"}
    loud = replace(KD, name="louder kd", entries=({"name": "kd", "weight": 3.0},), tuned_as="kd")
    assert setting(other, "far", loud, results, "other") == setting(TOY, "small", KD, results)
    # An arm that only this study has, with nothing to tune: at everybody's rate.
    assert setting(other, "far", extra, results, "other") == {"train.lr": 0.1}
    stranger = Arm("camkd", ({"name": "camkd"},))
    with pytest.raises(UserError, match="study 'other', panel 'far': 'toy/small' has no arm 'camkd'"):
        setting(other, "far", stranger, results, "other")


def test_a_panel_that_does_not_exist_is_named(tmp_path: Path, studies: dict[str, Study]) -> None:
    studies["toy"] = replace(TOY, panels=(Panel("far", "Far", tuned="smal"), SMALL))
    with pytest.raises(UserError, match=r"no panel 'smal' .did you mean 'small'"):
        setting(studies["toy"], "far", KD, store(tmp_path))


def test_without_tuning_every_arm_is_at_its_defaults(tmp_path: Path, studies: dict[str, Study]) -> None:
    study = studies["toy"] = replace(TOY, tune=None)
    results = store(tmp_path)
    asked = finish(results, study)
    assert {w.what for w in asked} == {"row", "curve"}
    found = rows("toy", study, SMALL, results)
    assert [row.setting for row in found] == [{}] * 4
    assert {rate(row.cell) for row in found} == {0.05}  # the recipe's own
    kd, plain = (row.cell.key for row in found[2:])
    assert kd == plain


def test_cells_of_two_studies_are_trained_once(tmp_path: Path, studies: dict[str, Study]) -> None:
    twin = studies["twin"] = replace(TOY, title="Twin", seeds=(0, 1, 2, 3), arms=ARMS[:3])
    results = store(tmp_path)
    finish(results)
    again = finish(results, twin, name="twin")
    assert {w.what for w in again} == {"row", "curve"}
    assert {w.seeds for w in again} == {(3,)}  # the others are there
    assert sorted(file.parent.name for file in results.folder.glob("*/*.json")) == ["toy"] * len(list(results))


@pytest.mark.usefixtures("studies")
def test_the_curve_is_the_student_alone_as_it_is_set_for_other_lengths(tmp_path: Path) -> None:
    results = store(tmp_path)
    asked = finish(results, val=lambda cell, seed: 0.7 if cell.recipe("").train.weight_decay == 2e-3 else 0.5)
    recipes = [w.cell.recipe("") for w in asked if w.what == "curve"]
    assert [r.train.epochs for r in recipes] == [2, 6, 12]
    assert {(r.train.weight_decay, r.train.lr, len(r.mentors)) for r in recipes} == {(2e-3, 0.05, 0)}


def test_candidates() -> None:
    assert NONE.candidates() == tuple({"train.weight_decay": value} for value in (2e-4, 5e-4, 2e-3))
    assert PLAIN.candidates() == ({},)
    assert Arm("at", ({"name": "at"},), "weight").candidates()[1] == {"weight": 1000.0}  # at its default
    assert [c["weight"] for c in Arm("at", ({"name": "at", "weight": 5},), "weight").candidates()] == [0.5, 5, 50]
    both = Arm("kd", ({"name": "kd", "weight": 2.0, "supervised_weight": 1.0},), "weight+supervised_weight")
    assert both.candidates()[2] == {"weight": 20.0, "supervised_weight": 10.0}
    with pytest.raises(UserError, match="arm 'kd': method 'kd' has no option 'nonsense' to tune"):
        Arm("kd", ({"name": "kd"},), "nonsense").candidates()


def test_a_candidate_is_set_in_the_last_method_or_in_the_recipe() -> None:
    arm = Arm("two", ({"name": "average"}, {"name": "at"}), "weight", changes={"train.epochs": 2})
    made = arm.set({"weight": 3.0, "train.lr": 0.2})
    assert made.entries == ({"name": "average"}, {"name": "at", "weight": 3.0})
    assert (made.changes, made.candidates()) == ({"train.epochs": 2, "train.lr": 0.2}, ({},))
    fast = replace(arm, changes={"train.lr": 0.3}, assistants=True, mentors=("puppets-a",), tuned_as="one")
    assert fast.set({"weight": 3.0, "train.lr": 0.2}) == replace(
        fast, entries=made.entries, knob="", changes={"train.lr": 0.3}
    )


def test_the_default_budget_is_three_of_everything() -> None:
    tune = Tune()
    assert len(tune.rates) == len(NONE.candidates()) == len(AVERAGE.candidates()) == 3
    assert not set(tune.seeds) & set(Study.__dataclass_fields__["seeds"].default)


@pytest.mark.usefixtures("studies")
def test_a_panel_may_choose_nothing(tmp_path: Path) -> None:
    plain = replace(TOY, panels=(replace(SMALL, tuned=DEFAULTS),))
    asked = finish(store(tmp_path), plain)
    assert {w.what for w in asked} == {"row", "curve"}
    assert {rate(w.cell) for w in asked} == {TOY.train.get("lr", 0.05)}
    assert setting(plain, SMALL.name, KD, store(tmp_path / "other")) == {}


@pytest.mark.usefixtures("studies")
def test_everything_wanted_is_for_an_arm_and_some_can_be_left_for_later(tmp_path: Path) -> None:
    results = store(tmp_path)
    asked = finish(results)
    assert {w.arm for w in asked} == {arm.name for arm in ARMS}
    assert {w.arm for w in asked if w.what in ("rate", "curve")} == {"none"}
    queue = Queue(None, results, arms=frozenset({"kd"}))
    assert [queue._taken(TOY, arm.name) for arm in ARMS] == [True, False, True, False]
    assert all(Queue(None, results)._taken(TOY, arm.name) for arm in ARMS)
