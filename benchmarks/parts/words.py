"""Numbers of the tables as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classroomkd.methods import entries

__all__ = ["cost", "difference", "named", "points", "score", "setting"]


def named(row: Mapping[str, Any], method: str | None = None) -> str:
    """The arm, and whether its figures were made with an older version of its method than today's.

    Args:
        row: with ``versions`` by method; a row without was made with version 1.
        method: whose arm it is where the row does not say; None: the first word of the arm's name.
    """
    made, table = row.get("versions"), entries()
    made = made or {method or row["arm"].replace(",", "").split()[0]: 1}
    old = [
        f"version {version} of {name}, now {table[name].version}"
        for name, version in made.items()
        if name in table and version < table[name].version
    ]
    return f"{row['arm']} ({'; '.join(old)})" if old else str(row["arm"])


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


def setting(row: Mapping[str, Any]) -> str:
    """What was chosen on the validation part."""
    return ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in row["setting"].items())
