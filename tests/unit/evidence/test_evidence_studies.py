"""Every study of ``benchmarks/evidence/studies``: its recipes can be made, and its arms are compared fairly."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.evidence.arms import CORE, EVERY
from benchmarks.evidence.cells import Cell, cell_of, mentor_cell
from benchmarks.evidence.mentors import MENTORS
from benchmarks.evidence.study import DEFAULTS, STUDIES, Arm, Panel, Study, load_study, study_names
from classroomkd import methods
from classroomkd.errors import UserError
from classroomkd.tasks import offering

NAMES = [*study_names(), "_smoke"]


def source(name: str, panel: Panel) -> tuple[Study, Panel]:
    """Where the choices of a panel are made."""
    study = load_study(name)
    if panel.tuned in ("", DEFAULTS):
        return study, panel
    other, _, place = panel.tuned.rpartition("/")
    return source(other or name, load_study(other or name).panel(place))


def settings(name: str, panel: Panel, arm: Arm) -> list[dict[str, Any]]:
    """Everything that an arm may be set to in a panel."""
    study, _ = source(name, panel)
    if study.tune is None or panel.tuned == DEFAULTS:
        return [{}]
    theirs = {each.name: each for each in study.arms}.get(arm.tuned_as or arm.name, arm)
    return [{"train.lr": lr, **candidate} for lr in study.tune.rates for candidate in theirs.candidates()]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_a_study_can_be_made(name: str) -> None:
    """All candidates of all arms, in runs as the queue makes them; a curve's lengths are more epochs of the same."""
    study, runs = load_study(name), defaultdict[str, dict[str, Cell]](dict)
    for panel in study.panels:
        for arm in study.within(panel):
            for setting in settings(name, panel, arm):
                cell = cell_of(study, panel, arm.set(setting))
                runs[cell.base][cell.key] = cell
    for cells in runs.values():
        first = next(iter(cells.values()))
        recipe = first.recipe(".", grid=[cell.named for cell in cells.values()])
        assert len(recipe.arms()) == len(cells)
        assert {arm.slug for arm in recipe.arms()} == {cell.label for cell in cells.values()}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_says_what_it_is_about(name: str) -> None:
    study = load_study(name)
    assert study.title
    assert study.answers.endswith("?")
    assert len(study.seeds) == len(set(study.seeds)) >= 2
    assert study.tune is None or not set(study.tune.seeds) & set(study.seeds)


@pytest.mark.parametrize("name", NAMES)
def test_arms_are_distinct_and_the_student_alone_comes_first(name: str) -> None:
    study = load_study(name)
    names = [arm.name for arm in study.arms]
    assert len(names) == len(set(names))
    assert study.arms[0].name == "none"
    assert study.arms[0].alone
    assert study.base in ("", *names)
    assert {name for panel in study.panels for name in panel.arms or ()} <= set(names)
    assert all("none" in panel.arms for panel in study.panels if panel.arms is not None)
    assert [panel.name for panel in study.panels if not panel.name.replace("-", "").isalnum()] == []
    assert len({panel.name for panel in study.panels}) == len({panel.title for panel in study.panels})


@pytest.mark.parametrize("name", NAMES)
def test_two_arms_of_a_panel_are_two_trainings(name: str) -> None:
    study = load_study(name)
    for panel in study.panels:
        for setting in ({}, {"train.lr": 0.07}):
            keys = Counter(cell_of(study, panel, arm.set(setting)).key for arm in study.within(panel))
            assert keys.most_common(1)[0][1] == 1, f"{panel.name}: two arms are one training"


@pytest.mark.parametrize("name", NAMES)
def test_every_mentor_is_known(name: str) -> None:
    study = load_study(name)
    asked = [
        study.mentors,
        *(panel.mentors or () for panel in study.panels),
        *(arm.mentors or () for arm in study.arms),
    ]
    assert {mentor for group in asked for mentor in group} <= set(MENTORS)


@pytest.mark.parametrize("name", NAMES)
def test_arms_that_are_tuned_have_the_same_number_of_candidates(name: str) -> None:
    study = load_study(name)
    for panel in study.panels:
        chosen_in, place = source(name, panel)
        if chosen_in.tune is None:
            continue
        theirs = {arm.name: arm for arm in chosen_in.arms}
        tried = {arm.name: len(theirs[arm.tuned_as or arm.name].candidates()) for arm in study.arms if arm.knob}
        assert set(tried.values()) <= {3}, f"{place.name}: {tried}"
        for arm in study.arms:
            candidates = arm.candidates()
            assert len({str(candidate) for candidate in candidates}) == len(candidates)


@pytest.mark.parametrize("name", NAMES)
def test_the_student_alone_is_the_same_for_all_panels_with_the_same_images(name: str) -> None:
    """Nobody who is alone depends on mentors or on how answers are stored."""
    study = load_study(name)
    for panel in study.panels:
        assert cell_of(study, panel, study.arms[0]).mentors == ()
        assert "bank" not in cell_of(study, panel, study.arms[0]).said


def test_studies_are_in_the_order_of_the_queue() -> None:
    names = study_names()
    assert all(load_study(a).order <= load_study(b).order for a, b in pairwise(names))
    for place, name in enumerate(names):  # what a study takes over is decided before it
        for panel in load_study(name).panels:
            other = panel.tuned.rpartition("/")[0]
            assert other in ("", *names[:place]), (
                f"{name}/{panel.name} takes its choices from {other}, which comes later"
            )
    assert "_smoke" not in names


def test_an_unknown_study_is_named_with_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"no study 'few_label' \(did you mean 'few_labels'\?\); there are accuracy, all_labels"
    ):
        load_study("few_label")
    with pytest.raises(UserError, match=r"there is no study '\.\./arms'"):
        load_study("../arms")


def test_the_common_arms_have_every_method_of_classification() -> None:
    used = {entry["name"] for arm in EVERY for entry in arm.grid}
    teaching = {name for name, entry in methods.METHODS.items() if "classification" in offering(entry.asks)}
    pseudo = {name for name in teaching if methods.method_class(name).for_unlabelled}  # the student alone on labels
    alone = {name for name in teaching if methods.method_class(name).needs.mentors == 0}  # they learn without mentors
    alone |= {name for name in teaching if methods.METHODS[name].peers}
    own = {"dgkd", "kcd"}  # beside takd, with several assistants, and beside its controls, in studies of their own
    assert used == (teaching - {"weighted"} - pseudo - alone - own) | {"none"}
    assert EVERY[: len(CORE)] == CORE
    assert len(CORE) == 12


@pytest.mark.parametrize("name", sorted(MENTORS))
def test_mentors_can_be_trained_and_say_whether_they_saw_the_students_images(name: str) -> None:
    mentor = MENTORS[name]
    assert mentor.name == name
    if mentor.taught_by or mentor.made_from:
        assert mentor.taught_by in (*MENTORS, "")
        return
    recipe = mentor_cell(mentor).recipe(".")
    assert (len(recipe.arms()), recipe.mentors) == (1, ())
    shard = mentor.data.get("shard")
    assert shard == {True: "1/2", False: None}[name.endswith("-half")] or (shard == "2/2" and name.endswith("-new"))


def test_studies_of_new_pictures_have_the_other_half() -> None:
    """Whoever is taught by mentors of the first half learns from the second, or the study's title would not be true."""
    for name in study_names():
        study = load_study(name)
        for panel in study.panels:
            halves = {mentor.endswith("-half") for mentor in panel.mentors or study.mentors}
            if not halves:
                continue
            assert len(halves) == 1, f"{name}/{panel.name}: mentors of a half and of all images"
            shard = panel.changes.get("data.shard", study.data.get("shard"))
            assert shard == ("2/2" if halves == {True} else None), f"{name}/{panel.name}: shard {shard}"


def test_files_of_studies_have_names_that_can_be_typed() -> None:
    assert [file.stem for file in STUDIES.glob("*.py") if not file.stem.strip("_").isidentifier()] == []
