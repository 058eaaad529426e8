"""The benchmark's own plumbing: what a figure is, how sittings are put together, the table; nothing long is timed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from classroomkd.run.bank_choice import distinct

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """``benchmarks/bench.py``, with its folder on the path for as long as these tests run."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("bench_under_test", BENCHMARKS / "bench.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        while str(BENCHMARKS) in sys.path:
            sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def figures(bench: ModuleType) -> Any:
    return importlib.import_module("parts.figures")


SITTING = {"date": "2026-11-21 10:00 UTC", "command": "python x", "machine": "a machine", "versions": {"torch": "2"}}


def test_names_of_the_table_are_distinct_and_rows_exist(bench: ModuleType, figures: Any) -> None:
    names = [goal.name for goal in figures.GOALS]
    assert len(set(names)) == len(names)
    assert {goal.row for goal in figures.GOALS} == set(bench.ROWS) == set(range(1, 14))
    lower = {goal.row for goal in figures.GOALS if goal.name.startswith("at_least_")}
    assert lower == {2, 10, 12}


def test_a_ratio_is_formed_within_the_round(figures: Any) -> None:
    this, that = [(2.0, 4.0), (30.0, 60.0), (400.0, 400.0)], [(1.0, 4.0), (10.0, 20.0), (100.0, 100.0)]
    made = figures.ratios(this, that, that, extra=(1.0, 0.0))
    assert made.entry(1.5) == {"median": 3.1, "q1": 3.05, "q3": 3.555, "goal": 1.5}
    assert made.about() == {"rounds": 3, "wall": 3.0, "again": {"median": 1.0, "q1": 1.0, "q3": 1.0}}
    given = {"median": 2.0, "q1": 1.5, "q3": 2.25}
    assert figures.quartiles(figures.five(given)) == given


def entry(median: float, goal: float) -> dict[str, float]:
    return {"median": median, "q1": median, "q3": median, "goal": goal}


def test_verdicts(figures: Any) -> None:
    close = {"median": 1.0, "q1": 0.99, "q3": 1.01}
    wide = {"median": 1.0, "q1": 0.9, "q3": 1.1}
    assert figures.verdict("x", entry(1.02, 1.02), close) == "met"
    assert figures.verdict("x", entry(1.0, 1.02), wide) == "void"
    assert figures.verdict("x", entry(0.9, 1.02), wide) == "met"
    assert figures.verdict("x", entry(1.028, 1.02), close) == "met within noise"
    assert figures.verdict("x", entry(1.028, 1.02), wide) == "void"
    assert figures.verdict("x", entry(1.04, 1.02), close) == "not met"
    assert figures.verdict("x", entry(1.2, 1.02), wide) == "not met"
    assert figures.verdict("x", entry(0.0115, 0.01), close) == "not met"
    assert figures.verdict("at_least_x", entry(5.1, 5), close) == "met"
    assert figures.verdict("at_least_x", entry(4.97, 5), close) == "met within noise"
    assert figures.verdict("at_least_x", entry(4.0, 5), None) == "not met"


def test_sittings_are_put_together(bench: ModuleType, figures: Any) -> None:
    found = figures.Found({"bank_read_over_files": figures.Figure([0.1, 0.2])}, {"bank_cold_ms_per_64": "no disk"})
    first = bench.merged({}, 9, found, SITTING)
    assert first["ratios"] == {"bank_read_over_files": {"median": 0.15, "q1": 0.125, "q3": 0.175, "goal": 0.005}}
    assert first["missing"] == {"bank_cold_ms_per_64": "no disk"}
    later = SITTING | {"date": "2026-12-01 10:00 UTC"}
    both = bench.merged(first, 4, figures.Found({"exact_forwards_240_epochs": figures.Figure([0.5])}), later)
    assert list(both["ratios"]) == ["exact_forwards_240_epochs", "bank_read_over_files"]
    assert both["about"]["bank_read_over_files"]["date"] == SITTING["date"]
    assert both["about"]["exact_forwards_240_epochs"]["date"] == later["date"] == both["date"]
    assert both["missing"]["exact_forwards_five_trainings"] == "not measured"
    # What cannot be measured today does not throw away what was measured.
    kept = bench.merged(both, 9, figures.Found(missing={"bank_read_over_files": "no"}), later)
    assert kept["ratios"] == both["ratios"]
    assert "bank_read_over_files" not in kept["missing"]


def test_a_row_that_fails_does_not_cost_the_others(bench: ModuleType, figures: Any, tmp_path: Path) -> None:
    plan = figures.Plan(tmp_path, quick=True)
    made = ModuleType("parts.broken")

    def breaks(plan: Any) -> None:
        raise ValueError("of no use")

    def skips(plan: Any) -> None:
        raise figures.Skipped("not here")

    made.breaks, made.skips = breaks, skips  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "parts.broken", made)
        patch.setitem(bench.ROWS, 10, ("broken", "breaks"))
        assert bench.measured(10, plan).missing == {"at_least_crops_over_pil": "failed: ValueError: of no use"}
        patch.setitem(bench.ROWS, 10, ("broken", "skips"))
        assert bench.measured(10, plan).missing == {"at_least_crops_over_pil": "not here"}
    assert set(bench.measured(6, plan).missing) == {"online_over_classroomkd_loop", "warm_over_classroomkd_loop"}
    assert "--peer-python" in bench.measured(7, plan).missing["kd_over_torchdistill"]


def test_rows_are_chosen(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.options(["--only", "1,8"]).rows == [1, 8]
    assert bench.options([]).rows == list(range(1, 14))
    for wrong in (["--only", "14"], ["--only", "one"], ["--rounds", "1"]):
        with pytest.raises(SystemExit):
            bench.options(wrong)
    assert "rows are 1, 2" in capsys.readouterr().err


def test_the_table_shows_what_is_there_and_what_is_not(bench: ModuleType, figures: Any) -> None:
    table = importlib.import_module("parts.table")
    crops = figures.Found({"at_least_crops_over_pil": figures.Figure([9.0, 9.0], [8.0, 8.0], [1.0, 1.0], "a note")})
    made = bench.merged({}, 10, crops, SITTING)
    text = "\n".join(table.goals(bench.merged(made, 13, figures.Found(missing={}), SITTING)))
    row = next(line for line in text.splitlines() if line.startswith("| 10 |"))
    assert row.endswith("| 9 | ≥ 10 | not met | 8 | 1.00 [1.00, 1.00] | 2026-11-21 |")
    assert "a note" in text
    assert "- row 13, GPU: warm step over the student alone, both as CUDA graphs: not measured" in text


def test_exact_asks_as_often_as_chance_says(bench: ModuleType, figures: Any, tmp_path: Path) -> None:
    exact = importlib.import_module("parts.exact")
    shares = exact.asked(figures.Plan(tmp_path), samples=100, epochs=40, trainings=2)
    for trainings, share in enumerate(shares, start=1):
        draws = 40 * trainings
        assert share == pytest.approx(distinct(162, draws) / draws, abs=0.02)
    assert shares[1] < shares[0] - 0.05


def test_one_row_end_to_end(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latest.json"
    bench.main(["--only", "12,6", "--quick", "--out", str(out)])
    made = json.loads(out.read_text())
    assert made["ratios"]["exact_loss_difference"]["median"] == pytest.approx(0, abs=1e-3)
    assert set(made["ratios"]["exact_loss_difference"]) == {"median", "q1", "q3", "goal"}
    assert made["about"]["exact_loss_difference"]["command"].startswith("python benchmarks/bench.py --only 12,6")
    assert "no clone was named" in made["missing"]["online_over_classroomkd_loop"]
    assert "exact_loss_difference" in capsys.readouterr().out
