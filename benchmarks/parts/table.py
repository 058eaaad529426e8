"""The section of ``RESULTS.md`` that ``latest.json`` becomes: a line for every figure of the table of goals."""

from __future__ import annotations

from collections import Counter
from typing import Any

from parts.figures import GOALS, verdict

__all__ = ["goals"]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if abs(value) < 0.01 else f"{value:.4g}"


def goals(latest: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    ratios, about, missing = latest["ratios"], latest["about"], latest.get("missing", {})
    machine = Counter(a["machine"] for a in about.values()).most_common(1)
    versions = ", ".join(f"{name} {version}" for name, version in latest["versions"].items())
    lines = [
        "## What it costs: the table of goals",
        "",
        "`python benchmarks/bench.py`, or `make bench`" + (f" ({machine[0][0]}; {versions})" if machine else ""),
        "",
        "Median over rounds of a ratio within the round, quartiles in brackets; CPU time, the wall beside it; A/A is "
        "the base over itself. A goal is *met within noise* when what is lacking is no more than A/A shows and one per "
        "cent; a figure within 5 % of its goal, on either side, is *void* when A/A is wider than 3 %: measure again.",
        "",
        "| # | what | figure | goal | | wall | A/A | date |",
        "|---:|:---|---:|---:|:---|---:|---:|:---|",
    ]
    other = []
    for goal in GOALS:
        if goal.name not in ratios:
            continue
        entry, known = ratios[goal.name], about[goal.name]
        again = known.get("again")
        sign = "≥" if goal.name.startswith("at_least_") else "≤"
        spread = "" if entry["q1"] == entry["q3"] else f" [{_number(entry['q1'])}, {_number(entry['q3'])}]"
        base = f"{again['median']:.2f} [{again['q1']:.2f}, {again['q3']:.2f}]" if again else "–"
        wall = _number(known["wall"]) if "wall" in known else "–"
        lines.append(
            f"| {goal.row} | {goal.what} | {_number(entry['median'])}{spread} | {sign} {_number(goal.goal)} "
            f"| {verdict(goal.name, entry, again)} | {wall} | {base} | {known['date'].split()[0]} |"
        )
        if machine and known["machine"] != machine[0][0]:
            other.append(f"- row {goal.row}, {goal.what}: measured on {known['machine']}")
        if known.get("note"):
            other.append(f"- row {goal.row}, {goal.what}: {known['note']}")
    lines += ["", *other, ""]
    if missing:
        what = {goal.name: f"row {goal.row}, {goal.what}" for goal in GOALS}
        lines += ["Not measured:", "", *(f"- {what[name]}: {why}" for name, why in missing.items()), ""]
    return lines
