"""Numbers of the tables as they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classroomkd.methods.table import METHODS

__all__ = ["cost", "difference", "method_of", "older", "points", "score", "setting"]


def points(value: float) -> str:
    """A fraction in percent."""
    return f"{100 * value:.2f}"


def score(row: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the seeds."""
    return points(row["mean"]) + ("" if row["sd"] is None else f" ± {points(row['sd'])}")


def difference(row: Mapping[str, Any], base: str) -> str:
    """Points above ``base`` with their interval; marked where that excludes 0."""
    found = row.get(f"vs {base}")
    if found is None or found[0] is None:
        return "–"
    if found[1] is None:
        return f"{100 * found[0]:+.2f} (one seed)"
    middle, low, high = (100 * x for x in found)
    mark = "▲ " if low > 0 else "▼ " if high < 0 else ""
    return f"{mark}{middle:+.2f} [{low:.2f}, {high:.2f}]"


def cost(row: Mapping[str, Any]) -> str:
    """A step over the student alone."""
    return "–" if row["cost_ratio"] is None else f"{row['cost_ratio']:.2f}"


def method_of(row: Mapping[str, Any]) -> str:
    """The method of a row, whose name its arm's starts with."""
    arm: str = row["arm"]
    return arm.replace(",", "").split()[0]


def older(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Arms measured with an earlier version of their method, and which one; a row that names none had the first."""
    found = [(row["arm"], row.get("version", 1), METHODS.get(method_of(row))) for row in rows]
    return [(arm, version) for arm, version, entry in found if entry is not None and version < entry.version]


def setting(row: Mapping[str, Any]) -> str:
    """What was chosen on the validation part."""
    return ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in row["setting"].items())
