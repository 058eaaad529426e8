"""What README.md says of the guard's false alarms: rendered from ``guard.json`` and ``results/guard.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import comb
from pathlib import Path
from typing import Any

__all__ = ["at_most", "page", "sentence"]

START = "<!-- guard: python benchmarks/render.py writes what follows -->"
END = "<!-- /guard -->"


def at_most(alarms: int, repeats: int) -> float:
    """The largest rate of alarms that leaves so few a chance of 5 % (Clopper and Pearson, one-sided)."""
    low, high = alarms / repeats, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        chance = sum(comb(repeats, k) * rate**k * (1 - rate) ** (repeats - k) for k in range(alarms + 1))
        low, high = (rate, high) if chance > 0.05 else (low, rate)
    return high


def sentence(committed: Mapping[str, Any], counted: Mapping[str, Any] | None) -> str:
    """How near to the limits the repeats came that set them, and the alarms of later ones.

    Args:
        committed: the content of ``guard.json``.
        counted: that of ``results/guard.json``, or None; left out where its limits or machine are others.
    """
    ratios = committed["ratios"]
    nearest = min(1 - row["most"] / row["limit"] for row in ratios.values())
    said = f"Of the {committed['repeats']} repeats that set them none came nearer to a limit than {nearest:.0%}."
    limits = {name: row["limit"] for name, row in ratios.items()}
    if counted is None or (counted["limits"], counted["machine"]) != (limits, committed["machine"]):
        return f"{said} False alarms of these limits have not been counted: `python benchmarks/guard.py --repeat 30`."
    rate = at_most(counted["alarms"], counted["repeats"])
    return (
        f"{said} Alarms in {counted['repeats']} repeats after those: {counted['alarms']}, at a load of "
        f"{' to '.join(f'{x:g}' for x in sorted(counted['load']))} (`{counted['command']}`, {counted['machine']}, "
        f"{counted['date'].split()[0]}); so at 95 % confidence at most {rate:.0%} of runs."
    )


def page(readme: Path, guard: Path, counted: Path) -> dict[Path, str]:
    """The file and its text with the sentence in its place."""
    before, _, rest = readme.read_text().partition(START)
    told = sentence(json.loads(guard.read_text()), json.loads(counted.read_text()) if counted.exists() else None)
    return {readme: f"{before}{START}\n{told}\n{END}{rest.partition(END)[2]}"}
