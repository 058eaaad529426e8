"""Numbers, verdicts and a task's own words as people read them, one way everywhere: terminal, Markdown and page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "DASH",
    "Vocabulary",
    "alone",
    "baseline_name",
    "count",
    "decimals_for",
    "duration",
    "figure_name",
    "interval",
    "percent",
    "plus_minus",
    "points",
    "ratio",
    "shorten",
    "signed",
    "vocabulary",
    "vocabulary_of",
]

DASH = "–"
MARKS = {"gain": "▲", "loss": "▼"}
BASELINES = {"none": "the student alone", "average": "plain averaging"}
COLUMN = {"none": "alone", "average": "average"}


@dataclass(frozen=True)
class Vocabulary:
    """What a task's scores, units and samples are called; of classification unless it says otherwise.

    Attributes:
        rebuilt: what a reconstructed rule is, the end of a sentence.
        metric: the score that counts, within a sentence.
        on_val: the same of the validation part, where it has another name.
        by_unit: the score of one class or joint.
        key: of a score in the data behind charts, where a metric's own name could not stand.
        heading: of a column of test scores.
        suffix: what stands after ``81.2 %`` so that nobody takes it for accuracy.
        scores: several of them.
        unit, units: what a sample's answer is about.
        samples: what a part consists of.
        seen: what a network was trained on so many of.
        spot, spots: what a mentor is active on or not.
        share, share_of, whole: of what a heat map by unit shows shares (as a title, under one), over what it has means.
    """

    metric: str = "accuracy"
    on_val: str = ""
    by_unit: str = "accuracy"
    key: str = "accuracy"
    heading: str = "test %"
    suffix: str = ""
    scores: str = "Accuracies"
    unit: str = "class"
    units: str = "classes"
    samples: str = "samples"
    seen: str = "labels"
    spot: str = "sample"
    spots: str = "samples"
    share: str = "% of a class's samples"
    share_of: str = "share of the class's samples"
    whole: str = "samples of the class"
    rebuilt: str = "rebuilt from a description, not from the authors' code"

    @property
    def val(self) -> str:
        """The score that counts, of the validation part."""
        return self.on_val or self.metric

    @property
    def title(self) -> str:
        """The metric at the start of a sentence; one that has a capital (``mAP``) keeps its letters."""
        return self.metric if self.metric != self.metric.lower() else self.metric.capitalize()

    def marks(self, task: str) -> dict[str, str]:
        """What a row of a table says of its task; nothing where its scores are accuracies."""
        return {} if self == CLASSES else {"task": task, "metric": self.metric}


CLASSES = Vocabulary()
TASKS = {
    "classification": CLASSES,
    "pose": Vocabulary(
        unit="joint",
        units="joints",
        samples="persons",
        seen="persons",
        spot="joint",
        spots="joints",
        share="% of the persons with a joint",
        share_of="share of the persons with the joint",
        whole="persons with the joint",
        rebuilt="rebuilt from a description; what it does on joints is this project's design (none was released)",
    ),
}


def vocabulary(task: str, metric: str = "", by_unit: str = "") -> Vocabulary:
    """The words of a task; without a ``metric`` (runs of earlier versions) scores are accuracies."""
    known = TASKS.get(task, CLASSES)
    if metric in ("", "accuracy"):
        return known
    return replace(
        known,
        metric=metric,
        by_unit=by_unit or metric,
        key="score",
        heading=f"{metric} %",
        suffix=f" {metric}",
        scores="Scores",
    )


def vocabulary_of(rows: Iterable[Mapping[str, Any]]) -> Vocabulary:
    """The words for a table: those of its rows, or the least that rows of several tasks have in common."""
    found = {vocabulary(row.get("task", ""), row.get("metric", "")) for row in rows}
    return found.pop() if len(found) == 1 else CLASSES


def figure_name(name: str) -> str:
    """``AP50_gtbox`` for ``AP_gtbox:AP50``, and ``AP_gtbox, visible joints alone`` for ``AP_gtbox:visible``."""
    first, _, what = name.partition(":")
    if not what:
        return name
    boxes = first.partition("_")[2]
    return f"{first}, {what} joints alone" if what in ("visible", "hidden") else f"{what}_{boxes}" if boxes else what


def baseline_name(name: str) -> str:
    """A baseline in a sentence: ``the student alone``, ``plain averaging``, or the arm's own label."""
    return BASELINES.get(name, name)


def alone(name: str) -> str:
    """A baseline in a column heading: ``alone``, ``average``, or the arm's own label."""
    return COLUMN.get(name, name)


def decimals_for(test: int | None) -> int:
    """Decimals a percentage deserves: two from 5,000 test samples on, where 0.01 points is a half sample or more."""
    return 2 if test is not None and test >= 5000 else 1


def percent(fraction: float | None, decimals: int = 1) -> str:
    """``81.2`` for 0.812; a dash for a missing one."""
    return DASH if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{decimals}f}"


def plus_minus(mean: float | None, sd: float | None, decimals: int = 1) -> str:
    """``81.2 ± 0.9`` in percent of fractions; only the mean where there is no standard deviation."""
    if mean is None or sd is None:
        return percent(mean, decimals)
    return f"{percent(mean, decimals)} ± {percent(sd, decimals)}"


def signed(fraction: float, decimals: int = 1) -> str:
    """``+5.1``, ``−0.3``, ``0.0`` in percentage points, with a true minus sign."""
    text = f"{100 * fraction:.{decimals}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def interval(low: float | None, high: float | None, decimals: int = 1) -> str:
    """``[4.0, 6.2]`` in percentage points; empty where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{signed(low, decimals).removeprefix('+')}, {signed(high, decimals).removeprefix('+')}]"


def points(difference: dict[str, float | int | str | None] | None, decimals: int = 1, *, mark: bool = True) -> str:
    """``▲ +5.1 [4.0, 6.2]``: a difference as :func:`classroomkd.report.rows.result_rows` gives it.

    The triangle stands where the interval excludes 0, up for a gain and down for a loss; with one seed there is no
    interval and the number stands alone.
    """
    if difference is None or difference["mean"] is None:
        return DASH
    parts = [signed(_float(difference["mean"]), decimals)]
    if difference["low"] is not None:
        parts.append(interval(_float(difference["low"]), _float(difference["high"]), decimals))
    symbol = MARKS.get(str(difference["verdict"])) if mark else None
    return " ".join([symbol, *parts] if symbol else parts)


def count(number: float | None) -> str:
    """``987``, ``78.0 k``, ``1.23 M``, ``2.05 G``; a dash for a missing one."""
    if number is None or not math.isfinite(number):
        return DASH
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return f"{number:.0f}"


def ratio(number: float | None) -> str:
    """``1.02×``; a dash for a missing one."""
    return DASH if number is None or not math.isfinite(number) else f"{number:.2f}×"


def duration(seconds: float | None) -> str:
    """``0.8 s``, ``42 s``, ``3 min 20 s``, ``2 h 05 min``, ``4 d 3 h``; a dash for a missing one."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters, the middle replaced by an ellipsis (names differ at both ends)."""
    if len(text) <= width:
        return text
    if width < 3:
        return text[:width]
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def _float(value: float | int | str | None) -> float:
    assert isinstance(value, int | float), value
    return float(value)
