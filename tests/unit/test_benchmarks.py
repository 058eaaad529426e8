"""The pages made from measured costs, and what is read of the study of stored answers. Nothing is trained."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from classroomkd import data
from classroomkd import methods as table
from classroomkd.recipe import make_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FIGURE = "at_least_accuracy_views_8_points"


def load(name: str) -> ModuleType:
    """A script of the folder as a module, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


render, scale = load("render"), load("scale")
quality = load("parts/quality")
banked = sys.modules["parts.banked"]
cells, mentors, protocol, queue, results, status, study = (
    importlib.import_module(f"benchmarks.evidence.{name}")
    for name in ("cells", "mentors", "protocol", "queue", "results", "status", "study")
)
STORED = study.load_study("accuracy")
ARMS = {arm.name: arm for arm in STORED.arms}


class Desk:
    """Results of the study of stored answers, as they are said to be."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch

    def version(self, version: int) -> None:
        """Today's version of ClassroomKD."""
        entry = table.entries()["classroomkd"]
        self.patch.setitem(table.entries(), "classroomkd", entry._replace(version=version))

    def finish(self, arm: str, seeds: int, base: float, **more: Any) -> None:
        """Students of an arm with today's version."""
        store, cell = results.Store(self.folder), cells.cell_of(STORED, STORED.panels[0], ARMS[arm])
        for seed in range(seeds):
            entry = {"unseen": base + seed / 100 + seed % 2 / 1000, "judged_on": 9500, **more}
            store.add("accuracy", cell, seed, entry, {})

    @property
    def told(self) -> Any:
        """Row 12."""
        return quality.accuracy(self.folder)

    @property
    def students(self) -> list[str]:
        """The table of docs/scale.md."""
        made: list[str] = scale.table_of_students({"students": banked.banked(self.folder)})
        return made


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path / "results", monkeypatch)
    monkeypatch.setattr(table.method_class("classroomkd"), "since", 0)
    made.version(1)
    return made


def test_tables_and_pages_are_those_of_the_results() -> None:
    """``python benchmarks/render.py`` has been run since the results changed."""
    files = render.rendered()
    assert files
    for file, text in files.items():
        assert file.read_text() == text, f"{file.name}: run python benchmarks/render.py"


def test_accuracy_of_the_bank_is_paired_by_seed_and_waits_for_all_seeds(desk: Desk) -> None:
    assert "takes hours" in desk.told.missing[FIGURE]
    desk.finish("exact", 1, 0.50)
    desk.finish("8 views", 1, 0.51)
    assert "1 seeds so far, which have no interval" in desk.told.missing[FIGURE]
    desk.finish("exact", 6, 0.50)
    desk.finish("8 views", 6, 0.51)
    desk.finish("online", 2, 0.49)
    assert "not all of 14 seeds yet; less exact" in desk.told.missing[FIGURE]
    assert "+1.00 points" in desk.told.missing[FIGURE]
    desk.finish("exact", 14, 0.50)
    desk.finish("8 views", 14, 0.51)
    figure = desk.told.figures[FIGURE]
    assert figure.values[0] == pytest.approx(1.0)
    assert figure.note.startswith("less exact")
    assert figure.note.endswith("n = 14 seeds, judged on 9,500 images")
    assert "version" not in figure.note
    desk.finish("online", 14, 0.49)
    assert desk.told.figures[FIGURE].note.startswith("less online: +2.00 points")


def test_what_few_logits_cost_is_shown_from_three_students_on(desk: Desk) -> None:
    desk.finish("8 views", 14, 0.51)
    for few, shown in ((2, False), (3, True)):
        desk.finish("8 views top-5", few, 0.48, outside=0.09)
        assert ("Not measured" not in desk.students[0]) == shown
    rows = desk.students
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["all logits", "top-5"]
    assert "| 0.09 |" in rows[-1]
    assert "-3.00 [-3.00, -3.00], n = 3" in rows[-1]


def test_figures_of_an_older_version_say_so_until_the_new_one_has_its_seeds(desk: Desk) -> None:
    for arm, score in (("exact", 0.50), ("8 views", 0.51), ("8 views top-5", 0.48)):
        desk.finish(arm, 14, score)
    desk.version(2)
    said = "version 1 of classroomkd, now 2"
    assert f"less exact (online's views, stored) with {said}: +1.00" in desk.told.figures[FIGURE].note
    assert desk.students[0] == f"Measured with {said}."
    desk.finish("exact", 13, 0.60)
    desk.finish("8 views", 14, 0.57)
    desk.finish("8 views top-5", 2, 0.50)
    assert said in desk.told.figures[FIGURE].note  # seeds of two versions are never paired
    assert said in desk.students[0]
    desk.finish("exact", 14, 0.60)
    desk.finish("8 views top-5", 3, 0.50)
    store = results.Store(desk.folder)
    store.add("elsewhere", cells.cell_of(STORED, STORED.panels[0], ARMS["online"]), 0, {"test_last": 0.5}, {})
    assert desk.told.figures[FIGURE].note.startswith("less exact (online's views, stored): -3.00 points")
    assert "-7.00 [-7.00, -7.00], n = 3" in desk.students[-1]


def test_figures_of_other_mentors_are_not_paired_with_todays(desk: Desk) -> None:
    desk.finish("exact", 14, 0.50)
    desk.finish("8 views", 14, 0.51)
    name = "vgg8-few"
    other = dataclasses.replace(mentors.MENTORS[name], train={**mentors.SGD, "epochs": 21})
    desk.patch.setitem(mentors.MENTORS, name, other)
    desk.finish("exact", 20, 0.60)
    assert "+1.00 points" in desk.told.figures[FIGURE].note
    assert "with other defaults or mentors than today's" in desk.told.figures[FIGURE].note


def test_mentors_are_paid_for_the_views_that_are_stored_of_whatever_form(tmp_path: Path) -> None:
    store = results.Store(tmp_path)
    for name in STORED.mentors:
        entry = {"steps": 1000, "seconds": 60.0}
        store.add("mentors", cells.mentor_cell(mentors.MENTORS[name]), 0, entry, {})
    paid = {
        name: protocol._mentors_seconds(store, cells.cell_of(STORED, STORED.panels[0], arm))
        for name, arm in ARMS.items()
    }
    assert paid["none"] == 0
    assert paid["online"] == 4 * 60  # a step online has the answers in it
    assert paid["online"] < paid["8 views"] == paid["8 views top-5"] < paid["exact"]


def test_core_hours_are_said_although_a_dry_run_had_no_time_for_every_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"floor_ms": 10.0, "data_ms": 2.0, "x_floor": 2.0, "x_floor_bank": 1.2}
    unmeasured = {"floor_ms": 10.0, "x_floor": 2.0, "x_floor_bank": None}

    class Dry:
        def __init__(self, *given: Any) -> None: ...

        def plan(self, budget: float) -> dict[str, Any]:
            return {"steps": 1000, "arms": [measured, unmeasured]}

    monkeypatch.setattr(status, "Session", Dry)
    smoke, desk = study.load_study("_smoke"), queue.Queue(None, results.Store(tmp_path), tmp_path)
    assert status._seconds(smoke, smoke.panels[0], desk) == {"none": 10.0, "average": 14.0, "kd": 22.0}


def test_accuracy_of_the_bank_is_judged_on_images_that_no_one_was_taught_on() -> None:
    spec = {"source": "puppets", "limit": 30, "val_fraction": 0.2, "options": {"train": 80, "test": 20}}
    recipe = make_recipe({"data": spec, "student": "convnet4", "method": "none"})
    unseen = importlib.import_module("benchmarks.evidence.studies.accuracy").unseen
    test, *spare = unseen(recipe.data.model_dump_json())
    taught = data.load(recipe.data)
    assert len(taught.train) + len(taught.val) == 30
    assert len(test) == 20
    found = torch.cat([part.ids for part in spare]).tolist()
    assert len(found) == len(set(found)) == 50
    assert not set(found) & set(torch.cat([taught.train.ids, taught.val.ids]).tolist())


def test_a_place_within_the_data_is_part_of_the_key_and_where_they_lie_is_not(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    people, other = (
        cells.Cell({"task": "pose", "data": {"source": f"coco-keypoints:{place}"}, "student": "simcc_tiny"}, (), (), {})
        for place in ("here", "there")
    )
    assert people.recipe(str(tmp_path), grid=["none"]).data.source == f"coco-keypoints:{tmp_path / 'here'}"
    assert people.said["data"]["source"] == "coco-keypoints:here"
    assert people.key != other.key


def test_a_mentor_is_trained_by_a_recipe_with_keys_of_its_own() -> None:
    weak = cells.mentor_cell(mentors.MENTORS["weak-fashion"]).recipe(".")
    assert (weak.student.model, weak.student.samples) == ("resnet8", 1000)
    assert {cells.mentor_cell(mentors.MENTORS[name]).recipe(".").task.name for name in ("bins", "maps")} == {"pose"}


def test_pictures_of_fashion_mnist_are_padded() -> None:
    assert mentors.FASHION["resize"] == "pad"  # as in all that was measured on them
