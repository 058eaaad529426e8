"""What was found: one JSON file a cell, ``results/STUDY/KEY.json``, with a line for every seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.evidence.cells import Cell
from classroomkd._files import atomic_write_text

__all__ = ["HERE", "Store", "harvested", "took"]

HERE = Path(__file__).resolve().parent
CURVE = 20  # places of a learning curve that are kept


@dataclass
class Store:
    """All results, by key; a cell that two studies share is trained once.

    Args:
        folder: of the files.
    """

    folder: Path = HERE / "results"
    _found: dict[str, dict[str, Any]] = field(default_factory=dict)
    _places: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in sorted(self.folder.glob("*/*.json")):
            self._found[file.stem] = json.loads(file.read_text())
            self._places[file.stem] = file

    def __iter__(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Study, key and content of every file."""
        return ((file.parent.name, key, self._found[key]) for key, file in sorted(self._places.items()))

    def students(self, cell: Cell) -> dict[int, dict[str, Any]]:
        """The finished students of a cell by seed."""
        return {int(seed): entry for seed, entry in self._content(cell)["students"].items()}

    def failures(self, cell: Cell) -> dict[int, str]:
        """Why a seed has no student; it is not tried again."""
        return {int(seed): why for seed, why in self._content(cell)["failures"].items()}

    def scores(self, cell: Cell, of: str = "test_last") -> dict[int, float]:
        """One score by seed."""
        return {seed: entry[of] for seed, entry in self.students(cell).items() if entry.get(of) is not None}

    def missing(self, cell: Cell, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds that are neither finished nor known to fail."""
        known = {*self.students(cell), *self.failures(cell)}
        return tuple(seed for seed in seeds if seed not in known)

    def about(self, cell: Cell) -> dict[str, Any]:
        """Everything in the file of a cell."""
        return self._content(cell)

    def add(self, study: str, cell: Cell, seed: int, entry: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Keep a finished student; ``about`` are machine and mentors."""
        content = self._content(cell)
        content["students"][str(seed)] = dict(entry)
        self._write(study, cell, {**content, **about})

    def fail(self, study: str, cell: Cell, seed: int, why: str) -> None:
        """Keep that a student could not be finished."""
        content = self._content(cell)
        content["failures"][str(seed)] = why
        self._write(study, cell, content)

    def _content(self, cell: Cell) -> dict[str, Any]:
        return self._found.get(cell.key) or {"recipe": cell.said, "students": {}, "failures": {}}

    def _write(self, study: str, cell: Cell, content: dict[str, Any]) -> None:
        for part in ("students", "failures"):
            content[part] = dict(sorted(content[part].items(), key=lambda item: int(item[0])))
        file = self._places.setdefault(cell.key, self.folder / study / f"{cell.key}.json")
        self._found[cell.key] = content
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, _text(content))


def _text(content: Mapping[str, Any]) -> str:
    """JSON with a line for every student, so that a change is a line in a diff."""
    parts = []
    for key, value in content.items():
        if key == "students":
            inner = ",\n".join(f'  "{seed}": {json.dumps(entry)}' for seed, entry in value.items())
            parts.append(f' "students": {{\n{inner}\n }}' if inner else ' "students": {}')
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def took(entry: Mapping[str, Any]) -> float:
    """Seconds of a training: its steps, in the processor's time, which sees no other program; else the clock's."""
    return float(entry["steps"] * entry["step_ms"] / 1000 if "step_ms" in entry else entry["seconds"])


def harvested(folder: Path) -> dict[str, Any]:
    """What is kept of a finished student's folder."""
    entry = json.loads((folder / "entry.json").read_text())
    kept = {"test_last", "test_best", "val_last", "val_best", "best_epoch", "seconds", "steps", "step_ms"}
    kept |= {"cost_ratio", "gradient_ratio", "test_metrics", "not_finite", "left_out"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line]
    curve = [[line["epoch"], round(line["accuracy"], 4)] for line in lines if line["kind"] == "val"]
    step = max(1, len(curve) // CURVE)
    found = {**{k: v for k, v in entry.items() if k in kept}, "val_curve": curve[::-1][::step][::-1]}
    return {**found, **({"together": _together(entry["variants"])} if entry.get("variants") else {})}


def _together(variants: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of networks that were trained together: what each scores at the end, and their ensemble, and how often two of its
    members differ."""
    found: dict[str, Any] = {"members": {}, "teachers": {}}
    for each in variants:
        if each["kind"] == "trainee":
            found["teachers" if each.get("role") == "teacher" else "members"][each["name"]] = each["test_last"]
        elif each["kind"] == "ensemble":
            found |= {"ensemble": each["test_last"], "disagreement": each.get("disagreement")}
    return found
