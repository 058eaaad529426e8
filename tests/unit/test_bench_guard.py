"""The regression guard: counts and a few ratios of a tiny set-up against the committed ``benchmarks/guard.json``.

Its limits come from thirty repeats on a loaded machine, and are wider on any other; a ratio fails only when three
measurements in a row are beyond its limit. ``python benchmarks/guard.py --repeat 30 --write`` makes them anew where a
change is meant.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def guard() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("guard")
    finally:
        while str(BENCHMARKS) in sys.path:
            sys.path.remove(str(BENCHMARKS))


def test_nothing_got_worse(guard: Any, tmp_path: Path) -> None:
    assert guard.compare(json.loads(guard.FILE.read_text()), tmp_path) == []


def test_what_gets_worse_is_named(guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = json.loads(guard.FILE.read_text())
    taken: list[float] = []
    limits = guard.limits(committed)
    slow = next(iter(limits))

    def timings(folder: Path) -> dict[str, float]:
        taken.append(1.0)
        return {name: 0.9 * limit if name != slow else 1.1 * limit for name, limit in limits.items()}

    known = guard.counts(tmp_path / "known")
    monkeypatch.setattr(guard, "timings", timings)
    monkeypatch.setattr(guard, "counts", lambda folder: known)
    assert [line.partition(":")[0] for line in guard.compare(committed, tmp_path)] == [slow]
    assert len(taken) == guard.TRIES
    # Once within the limit is enough.
    rest = iter([{**timings(tmp_path), slow: 2 * limits[slow]}, {n: 0.9 * x for n, x in limits.items()}])
    monkeypatch.setattr(guard, "timings", lambda folder: next(rest))
    assert guard.compare(committed, tmp_path) == []
    worse = copy.deepcopy(committed)
    worse["counts"]["mentor forwards of three warm steps"] = 3
    worse["at_most"] = {name: count - 1 for name, count in guard.at_most().items()}
    worse["torch"] = torch.__version__
    monkeypatch.setattr(guard, "timings", lambda folder: {})
    assert [line.partition(":")[0] for line in guard.compare(worse, tmp_path)] == [
        "mentor forwards of three warm steps",
        "operations of loss, backward and record",
    ]


def test_a_loop_over_the_mentors_is_noticed(guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from classroomkd.functional import kl_divergence
    from classroomkd.tasks.classification import task as classification

    def looped(student: torch.Tensor, mentors: torch.Tensor, temperature: Any) -> torch.Tensor:
        each = temperature if isinstance(temperature, torch.Tensor) else [temperature] * len(mentors)
        return torch.stack([kl_divergence(student[0], mentor, t) for mentor, t in zip(mentors, each, strict=True)])

    monkeypatch.setattr(guard, "timings", lambda folder: {})
    committed = json.loads(guard.FILE.read_text()) | {"at_most": guard.at_most(), "torch": torch.__version__}
    monkeypatch.setattr(classification, "kl_divergence", looped)
    worse = guard.compare(committed, tmp_path)
    assert any(line.startswith("operations that four more mentors add to the loss: ") for line in worse)
    assert any(line.startswith("operations of loss, backward and record: ") for line in worse)


def test_limits_come_from_the_repeats(guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "counts", lambda folder: {"n": 1})
    repeats = [{"a": 1.0, "b": 2.0}, {"a": 1.01, "b": 2.0}, {"a": 0.99, "b": 3.0}]
    made = guard.written(repeats, tmp_path, (1.0, 2.0))["ratios"]
    assert (made["a"]["limit"], made["b"]["limit"]) == (1.15, 3.5)
    assert made["b"] == {"median": 2.0, "least": 2.0, "most": 3.0, "tolerance": 0.75, "limit": 3.5}


def test_another_machine_has_wider_limits(guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"median": 1.2, "limit": 1.4}
    committed = {"counts": {"n": 1}, "at_most": {"operations": 100}, "ratios": {"slow": row}}
    committed |= {"machine": "this one", "torch": torch.__version__}
    now = {"slow": 1.5, "operations": 105, "n": 1}
    monkeypatch.setattr(guard, "counts", lambda folder: {"n": now["n"]})
    monkeypatch.setattr(guard, "at_most", lambda: {"operations": now["operations"]})
    monkeypatch.setattr(guard, "timings", lambda folder: {"slow": now["slow"]})
    monkeypatch.setattr(guard, "machine", lambda: "this one")
    assert guard.compare(committed, tmp_path) == [
        "operations: 105, committed at most 100",
        "slow: 1.500, 1.500, 1.500, limit 1.4",
    ]
    monkeypatch.setattr(guard, "machine", lambda: "another")
    committed["torch"] = "another"
    assert guard.compare(committed, tmp_path) == []
    now |= {"slow": 2.5, "operations": 111, "n": 2}
    assert guard.compare(committed, tmp_path) == [
        "n: 2, committed 1",
        "operations: 111, committed at most 110",
        "slow: 2.500, 2.500, 2.500, limit 2.4",
    ]


def test_false_alarms_are_counted_and_told(guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alarms = importlib.import_module("parts.alarms")
    committed, out = json.loads(guard.FILE.read_text()), tmp_path / "counted.json"
    monkeypatch.setattr(guard, "machine", lambda: committed["machine"])
    said = iter([[], ["slow: 2.0"], []])
    monkeypatch.setattr(guard, "compare", lambda committed, folder: next(said))
    assert guard.main(["--repeat", "3", "--out", str(out)]) == 1
    made = json.loads(out.read_text())
    assert (made["repeats"], made["alarms"]) == (3, 1)
    assert made["limits"] == {name: row["limit"] for name, row in committed["ratios"].items()}
    told = alarms.sentence(committed, made | {"load": [5.1, 4.0]})
    assert "Alarms in 3 repeats after those: 1, at a load of 4 to 5.1 (`python benchmarks/guard.py --repeat 3`" in told
    assert told.endswith("at 95 % confidence at most 86% of runs.")
    for other in ({"machine": "another"}, {"limits": {}}):
        assert "have not been counted" in alarms.sentence(committed, made | other)
    monkeypatch.setattr(guard, "compare", lambda committed, folder: [])
    before = out.read_text()
    assert guard.main(["--out", str(out)]) == 0
    assert out.read_text() == before  # a single comparison counts nothing


def test_the_rate_of_alarms_has_an_upper_bound(guard: Any) -> None:
    alarms = importlib.import_module("parts.alarms")
    assert alarms.at_most(0, 30) == pytest.approx(1 - 0.05 ** (1 / 30), abs=1e-6)
    assert alarms.at_most(3, 3) == 1
    assert alarms.at_most(1, 30) == pytest.approx(0.1486, abs=1e-3)
