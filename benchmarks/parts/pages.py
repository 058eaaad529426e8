"""The rows of the tables on the pages of their methods, ``docs/methods/NAME.md``, between two marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parts.words import cost, difference, named, points, score

__all__ = ["pages"]

START = "<!-- rows: python benchmarks/render.py writes what follows -->"
END = "<!-- /rows -->"
RESULTS = "../../benchmarks/RESULTS.md"


def pages(docs: Path, results: Path) -> dict[Path, str]:
    """File and text of every page that has rows now, or had some."""
    found: dict[str, list[str]] = {}
    for file, rows in (("methods", _classes), ("pose", _joints)):
        path = results / f"{file}.json"
        if path.exists():
            for name, lines in rows(json.loads(path.read_text())).items():
                found.setdefault(name, []).extend(lines)
    made = {}
    for page in sorted(docs.glob("*.md")):
        text, lines = page.read_text(), found.get(page.stem, [])
        if lines or START in text:
            made[page] = _placed(text, "\n".join([START, *(lines or ["Not measured."]), END]))
    return made


def _placed(text: str, block: str) -> str:
    if START in text:
        before, _, rest = text.partition(START)
        return before + block + rest.partition(END)[2]
    before, tests, after = text.partition("## Tests\n")
    return f"{before}## Measured\n\n{block}\n\n{tests}{after}"


def _under(head: list[str], rows: list[dict[str, Any]], line: Callable[[dict[str, Any]], str]) -> dict[str, list[str]]:
    """By method, whose name an arm's starts with, the head and a line for each of its rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["arm"].replace(",", "").split()[0], list(head)).append(line(row))
    return found


def _classes(result: Mapping[str, Any]) -> dict[str, list[str]]:
    if not result["rows"]:
        return {}
    student = result["student"]["model"]
    head = [
        f"20 classes of CIFAR-100, {student} student, {len(result['mentors'])} mentors, {result['epochs']} epochs: "
        f"`{result['command']}` ([all arms, and what this cannot show]({RESULTS})).",
        "",
        "| arm | strength | n | test % | vs student alone | vs average | cost, × alone |",
        "|:---|:---|---:|---:|---:|---:|---:|",
    ]
    return _under(
        head,
        result["rows"],
        lambda r: (
            f"| {named(r)} | {r['strength']} | {r['n']} | {score(r)} | {difference(r, 'none')} "
            f"| {difference(r, 'average')} | {cost(r)} |"
        ),
    )


def _joints(result: Mapping[str, Any]) -> dict[str, list[str]]:
    head = [
        "",
        f"Human pose, LSP Extended, {result['student']['model']} student, {len(result['mentors'])} mentors, "
        f"{result['epochs']} epochs: `{result['command']}` ([all arms]({RESULTS})).",
        "",
        "| arm | n | PCK@0.2 % | vs student alone | vs average | AP_gtbox % | cost, × alone |",
        "|:---|---:|---:|---:|---:|---:|---:|",
    ]
    return _under(
        head,
        result["rows"],
        lambda r: (
            f"| {named(r)} | {r['n']} | {score(r['PCK@0.2'])} | {difference(r['PCK@0.2'], 'none')} "
            f"| {difference(r['PCK@0.2'], 'average')} | {points(r['AP_gtbox']['mean'])} | {cost(r)} |"
        ),
    )
