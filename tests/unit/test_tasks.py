"""The table of tasks, plug-ins of tasks and data sources, and what a metric's unit and direction decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classroomkd import methods, tasks
from classroomkd.cli.app import main
from classroomkd.data.sources import table as sources
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.report import statistics, table, teaching, vocabulary
from classroomkd.tasks import TASKS, TaskRow
from classroomkd.tasks.metric import Metric

RECIPE = {"name": "x", "data": "puppets", "student": "convnet8", "method": "none"}

PLUGIN = """
from classroomkd.data.sources.table import Entry
from classroomkd.tasks import TaskRow
from classroomkd.tasks.classification.spec import ClassificationSpec
from classroomkd.tasks.classification.task import Classification
from classroomkd.tasks.metric import Metric

class Spec(ClassificationSpec):
    name = "far"
    reads = "distances"
    samples = "pictures with a distance"
    offers = frozenset()

    def measure(self, metric):
        return Metric(metric, "px", higher_is_better=False)

class Far(Classification):
    name = "far"
    has_distributions = False

ROW = TaskRow("far", "how far", "far_task:Spec", "far_task:Far", "far_task:Runner", "far_task:Files")
ENTRY = Entry({"distances": "far_task:open_it"}, "numbers", options={"count": (int,)})
"""
POINTS = """[classroomkd.tasks]
far = far_task:ROW
gone = no_such_module:ROW
odd = far_task:ENTRY

[classroomkd.sources]
ruler = far_task:ENTRY
broken = no_such_module:ENTRY
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task and a source that are on the path as an installed package is."""
    (tmp_path / "far_task.py").write_text(PLUGIN)
    home = tmp_path / "far_task-1.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: far_task\nVersion: 1.0\n")
    (home / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = (tasks._plugins, tasks.find_row, sources._plugins, sources.find_entry)
    for cached in known:
        cached.cache_clear()
    yield
    for cached in known:
        cached.cache_clear()


def complaint(**changes: Any) -> str:
    with pytest.raises(UserError) as error:
        make_recipe({**RECIPE, **changes})
    return str(error.value)


def test_every_row_loads_and_agrees_with_itself() -> None:
    for name, row in TASKS.items():
        assert row.name == row.description.name == row.task_class.name == name
        assert all(row.load(part) for part in ("spec", "task", "runner", "files"))
        assert all(file.is_file() for file in row.description.demos.values())
    with pytest.raises(UserError, match=r"unknown task 'pos' \(did you mean 'pose'\?\)"):
        tasks.create("pos")


@pytest.mark.usefixtures("plugin")
def test_a_task_and_a_source_come_as_plug_ins(capsys: pytest.CaptureFixture[str]) -> None:
    assert tasks.names() == ["classification", "pose", "far", "gone", "odd"]
    assert [row.name for row in tasks.rows()] == ["classification", "pose", "far"]
    assert isinstance(tasks.find_row("far"), TaskRow)
    assert "there is no such task" in complaint(task="farr")
    assert "has classes, not distances; for task: far there are ruler" in complaint(task="far")
    assert "(give task: far)" in complaint(data="ruler")
    assert make_recipe({**RECIPE, "task": "far", "data": {"source": "ruler", "options": {"count": 2}}}).name == "x"
    assert "unknown option of 'ruler'" in complaint(task="far", data={"source": "ruler", "options": {"many": 2}})
    assert main(["list", "tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["far"]["summary"] == "how far"
    assert {"average", "classroomkd"} <= set(rows["far"]["methods"])
    assert "dwpose" not in rows["far"]["methods"]
    assert "cannot be loaded" in rows["gone"]["summary"]
    assert rows["gone"]["methods"] == []


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_that_is_broken_is_one_message() -> None:
    message = "task 'gone' is listed as no_such_module:ROW but cannot be loaded: No module named 'no_such_module'"
    assert message in complaint(task="gone")
    assert "task 'odd' is listed as far_task:ENTRY, which is no TaskRow of that name" in complaint(task="odd")
    text = "data source 'broken' is listed as no_such_module:ENTRY but cannot be loaded: No module named"
    assert text in complaint(data="broken")


@pytest.mark.usefixtures("plugin")
def test_what_needs_distributions_is_refused_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    create = methods.create

    def needing(name: str, **options: Any) -> Any:
        method: Any = create(name, **options)
        method.needs = _WithDistributions(method.needs)
        return method

    monkeypatch.setattr(methods, "create", needing)
    far = {"task": "far", "data": "ruler", "mentors": ["resnet8"], "method": "average"}
    assert "'average' needs answers that are distributions, which those of far are not" in complaint(**far)
    assert make_recipe({**RECIPE, "mentors": ["resnet8"], "method": "average"}).name == "x"
    assert "'dwpose' does not do far; it does pose" in complaint(**{**far, "method": "dwpose"})


class _WithDistributions:
    """The needs of a method, and distributions."""

    distributions = True

    def __init__(self, needs: Any) -> None:
        self._needs = needs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._needs, name)


# --- units and directions ---------------------------------------------------------------------------------------------

DECIBELS, PIXELS = Metric("PSNR", "dB"), Metric("error", "px", higher_is_better=False)


def test_a_metric_is_shown_in_its_unit() -> None:
    assert (DECIBELS.text(31.24), Metric("accuracy").text(0.812)) == ("31.2 dB", "81.2%")
    assert vocabulary.plus_minus(31.236, 0.4, 2, DECIBELS) == "31.24 ± 0.40"
    assert vocabulary.plus_minus(0.812, 0.009) == "81.2 ± 0.9"
    difference: dict[str, Any] = {"mean": -0.5, "low": -0.75, "high": -0.25, "verdict": "gain"}
    assert vocabulary.points(difference, 2, PIXELS) == "▲ −0.50 [−0.75, −0.25]"
    assert vocabulary.decimals_for(100, PIXELS) == 2
    say = vocabulary.vocabulary("classification", "PSNR", measure=DECIBELS)
    assert (say.heading, say.measure.difference_sign) == ("PSNR dB", "dB")
    assert say.marks("sr") == {"task": "sr", "metric": "PSNR", "metric_unit": "dB", "higher_is_better": True}
    rows = [say.marks("sr"), {"task": "pose", "metric": "AP_gtbox"}]
    assert vocabulary.vocabulary_of(rows[:1]).heading == "PSNR dB"
    assert vocabulary.vocabulary_of(rows).heading == "test"


def test_the_direction_of_a_metric_says_what_a_gain_is() -> None:
    taught, alone = {0: 3.0, 1: 3.2, 2: 2.9}, {0: 4.0, 1: 4.1, 2: 4.2}
    assert statistics.paired(taught, alone).verdict == "loss"
    assert statistics.paired(taught, alone, higher_is_better=False).verdict == "gain"
    assert statistics.paired(alone, taught, higher_is_better=False).verdict == "loss"
    assert PIXELS.rank(3.0) > PIXELS.rank(4.0)
    assert DECIBELS.rank(4.0) > DECIBELS.rank(3.0)


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_a_score_that_is_no_fraction_keeps_two_decimals_in_narrow_tables(decimals: int) -> None:
    assert vocabulary.plus_minus(0.46, 0.014, decimals, PIXELS) == "0.46 ± 0.01"
    assert vocabulary.signed(-0.04, decimals, PIXELS) == "−0.04"
    assert vocabulary.percent(0.123, decimals) == ("12", "12.3", "12.30")[decimals]


def test_a_table_names_the_unit_of_its_differences() -> None:
    difference = {"mean": 0.1, "low": 0.0, "high": 0.2, "verdict": "", "arm": "none", "run": "a"}

    def line(*marks: dict[str, Any]) -> str:
        rest: dict[str, Any] = {
            "vs": {"none": difference}, "test_last": {"n": 2, "mean": 0.5, "sd": 0.1}, "run": "a", "arm": "x",
            "missing": [], "status": "", "cost_ratio": None, "test": 10, "data": "d", "student": "s", "parameters": 1,
        }  # fmt: skip
        rows = [{**rest, **named} for named in marks]
        return next(text for text in table.notes(rows) if text.startswith("vs: "))

    alone = vocabulary.vocabulary("classification", "PSNR", measure=DECIBELS).marks("sr")
    shares = {"task": "pose", "metric": "AP_gtbox"}
    assert line(alone).startswith("vs: dB, paired")
    assert line(shares).startswith("vs: points, paired")
    assert line(alone, shares).startswith("vs: each in its score's unit, paired")


def test_of_errors_a_low_one_is_good() -> None:
    active, own = np.array([[0.9, 0.7, 0.5], [0.3, 0.2, 0.1]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    errors = vocabulary.vocabulary("classification", "error", measure=PIXELS)
    assert teaching._agreement(active, own, errors).startswith("Mentors taught where they are good")
    scores = vocabulary.vocabulary("classification", "PSNR", measure=DECIBELS)
    assert teaching._agreement(active, own, scores).startswith("Mentors did not teach where they are good")
