"""Figures of accuracy in README and docs come from results: none is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from benchmarks.evidence.marks import MARK, pages
from benchmarks.evidence.queue import ROOT

# A spread (12.3 ± 0.4) or an interval ([−0.4, 1.2]).
NUMBER = r"[+−-]?\d[\d.,]*"
FIGURE = re.compile(rf"±\s?\d|\[{NUMBER}, {NUMBER}\]")

# Written by a program, or code: marks of the bench, other blocks between marks (what writes each is said below), fenced
# blocks, and words in backticks.
WRITTEN = [
    MARK,
    re.compile(r"<!-- demo:begin -->.*?<!-- demo:end -->", re.S),  # classroomkd demo: another job, drawn data
    re.compile(r"<!-- students:begin -->.*?<!-- students:end -->", re.S),  # benchmarks/scale.py, from its own results
    re.compile(r"<!-- teaching:begin -->.*?<!-- teaching:end -->", re.S),  # examples/ital.py; test_ital.py compares
    re.compile(r"^```.*?^```$", re.S | re.M),
    re.compile(r"`[^`\n]+`"),
]
# Where a figure may stand that no study makes: page, words of its line, and why.
ALLOWED = [
    (
        "docs/methods/classroomkd.md",
        r"^\| (student alone|average|classroomkd([,:] .*)?) \| \d \|",
        "misordered.py",
    ),
    ("docs/pose.md", r"^\| `person.*\| 1 ± ", "how far people are turned and scaled, no result"),
    ("docs/errata.md", r"The projections of the hints are in no optimiser", "what released code does, with its place"),
]


def figures(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of every line with a figure that is not written by a program."""
    lines = text.splitlines()
    for block in WRITTEN:
        text = block.sub(lambda found: "\n" * found[0].count("\n"), text)
    return ((i + 1, lines[i]) for i, line in enumerate(text.splitlines()) if FIGURE.search(line))


def test_no_figure_is_typed_by_hand() -> None:
    typed = []
    for page in pages(ROOT):
        name = page.relative_to(ROOT).as_posix()
        for number, line in figures(page.read_text()):
            if not any(name == where and re.search(words, line) for where, words, _ in ALLOWED):
                typed.append(f"{name}:{number}: {line.strip()}")
    assert not typed, "put a mark in its place (benchmarks/evidence/README.md), or say why not:\n" + "\n".join(typed)


@pytest.mark.parametrize(
    "line",
    ["It has 52.3 ± 0.4 %.", "| a | 52.3 ±0.4 |", "worth +1.2 [0.3, 2.1] points", "−0.5 [−1.0, −0.1]", "[+0.1, 1]"],
)
def test_a_figure_is_found_with_its_line(line: str) -> None:
    assert [number for number, _ in figures(f"# Page\n\n```sh\nseeds=[0, 1]\n```\n\n{line}\n")] == [7]


@pytest.mark.parametrize(
    "text",
    [
        "Mean ± sd, with a 95 % interval.",
        "`size: [384, 288]` beside a mentor",
        "```yaml\nseeds: [0, 1]\n```",
        "<!-- evidence: score a/b c -->52.3 ± 0.4<!-- /evidence -->",
        "[one](two.md), [3](4.md)",
    ],
)
def test_other_things_are_none(text: str) -> None:
    assert list(figures(text)) == []
