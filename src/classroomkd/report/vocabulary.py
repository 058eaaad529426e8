"""Numbers, verdicts and a task's own words as people read them, one way everywhere: terminal, Markdown and page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from classroomkd import tasks
from classroomkd.errors import UserError
from classroomkd.tasks.metric import FRACTION, Metric
from classroomkd.tasks.vocabulary import Vocabulary

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
    "measure_of",
    "percent",
    "plus_minus",
    "points",
    "ratio",
    "shorten",
    "signed",
    "thousands",
    "vocabulary",
    "vocabulary_of",
]

DASH = "–"
MARKS = {"gain": "▲", "loss": "▼"}
BASELINES = {"none": "the student alone", "average": "plain averaging"}
COLUMN = {"none": "alone", "average": "average"}


CLASSES = Vocabulary()
FRACTIONS = Metric("score")  # shown in percent


def measure_of(task: str, metric: str) -> Metric:
    """Unit and direction of a task's metric; a fraction, and more is better, of a task that is not installed here."""
    with suppress(UserError):
        return tasks.describe(task).measure(metric)
    return Metric(metric)


def vocabulary(task: str, metric: str = "", by_unit: str = "", measure: Metric | None = None) -> Vocabulary:
    """The words of a task; without a ``metric`` (runs of earlier versions) scores are accuracies.

    Of a task that is not installed here, those of classification. ``measure``: the metric's unit and direction, where
    they are known otherwise than from the task.
    """
    known, spelled = CLASSES, ""
    with suppress(UserError):
        description = tasks.describe(task)
        known, spelled = description.vocabulary, description.spelled.get(metric, "")
    if metric in ("", "accuracy"):
        return known
    measure = measure or measure_of(task, metric)
    return replace(known, metric=metric, by_unit=by_unit or metric, measure=measure, spelled=spelled)


def vocabulary_of(rows: Iterable[Mapping[str, Any]]) -> Vocabulary:
    """The words for a table: those of its rows, or the least that rows of several tasks have in common."""
    several = {_of_row(row) for row in rows}
    if len(several) == 1:
        return several.pop()
    signs = {say.measure.sign for say in several}
    return CLASSES if len(signs) < 2 else replace(CLASSES, measure=Metric("score", unit=""))


def _of_row(row: Mapping[str, Any]) -> Vocabulary:
    task, metric = row.get("task", ""), row.get("metric", "")
    measure = None
    if "metric_unit" in row:
        measure = Metric(metric, row["metric_unit"], bool(row.get("higher_is_better", True)))
    return vocabulary(task, metric, measure=measure)


def figure_name(name: str, task: str = "") -> str:
    """``AP50_gtbox`` for ``AP_gtbox:AP50``, and ``AP_gtbox, visible joints alone`` for ``AP_gtbox:visible``.

    A figure of ``task`` that is not a fraction is followed by its unit: ``PSNR (dB)``.
    """
    unit = measure_of(task, name).unit if task else FRACTION
    if unit != FRACTION:
        return f"{name} ({unit})"
    first, _, what = name.partition(":")
    if not what or " " in first:  # a mentor's name may hold a colon
        return name
    boxes = first.partition("_")[2]
    return f"{first}, {what} joints alone" if what in ("visible", "hidden") else f"{what}_{boxes}" if boxes else what


def baseline_name(name: str) -> str:
    """A baseline in a sentence: ``the student alone``, ``plain averaging``, or the arm's own label."""
    return BASELINES.get(name, name)


def alone(name: str) -> str:
    """A baseline in a column heading: ``alone``, ``average``, or the arm's own label."""
    return COLUMN.get(name, name)


def decimals_for(test: int | None, measure: Metric = FRACTIONS) -> int:
    """Decimals a score deserves: of a percentage two from 5,000 test samples on, where 0.01 points is a half sample or
    more."""
    if measure.unit != FRACTION:
        return 2
    return 2 if test is not None and test >= 5000 else 1


def percent(value: float | None, decimals: int = 1, measure: Metric = FRACTIONS) -> str:
    """``81.2`` for 0.812, or a score in its own unit, never below two decimals; a dash for a missing one."""
    return DASH if value is None or not math.isfinite(value) else _number(value, decimals, measure)


def _number(value: float, decimals: int, measure: Metric) -> str:
    least = 0 if measure.unit == FRACTION else 2
    return f"{measure.factor * value:.{max(decimals, least)}f}"


def plus_minus(mean: float | None, sd: float | None, decimals: int = 1, measure: Metric = FRACTIONS) -> str:
    """``81.2 ± 0.9`` in percent of fractions; only the mean where there is no standard deviation."""
    if mean is None or sd is None:
        return percent(mean, decimals, measure)
    return f"{percent(mean, decimals, measure)} ± {percent(sd, decimals, measure)}"


def signed(difference: float, decimals: int = 1, measure: Metric = FRACTIONS) -> str:
    """``+5.1``, ``−0.3``, ``0.0`` in percentage points or the score's unit, with a true minus sign."""
    text = _number(difference, decimals, measure)
    if float(text) == 0:
        return text.removeprefix("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def interval(low: float | None, high: float | None, decimals: int = 1, measure: Metric = FRACTIONS) -> str:
    """``[4.0, 6.2]`` in percentage points or the score's unit; empty where there is no interval."""
    if low is None or high is None:
        return ""
    ends = (signed(end, decimals, measure).removeprefix("+") for end in (low, high))
    return f"[{', '.join(ends)}]"


def points(
    difference: Mapping[str, Any] | None,
    decimals: int = 1,
    measure: Metric = FRACTIONS,
    *,
    mark: bool = True,
) -> str:
    """``▲ +5.1 [4.0, 6.2]``: a difference as :func:`classroomkd.report.rows.result_rows` gives it.

    The triangle stands where the interval excludes 0, up for a gain and down for a loss; with one seed there is no
    interval and the number stands alone.
    """
    if difference is None or difference["mean"] is None:
        return DASH
    parts = [signed(difference["mean"], decimals, measure)]
    if difference["low"] is not None:
        parts.append(interval(difference["low"], difference["high"], decimals, measure))
    symbol = MARKS.get(difference["verdict"]) if mark else None
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


def thousands(number: int | None) -> str:
    """``12,345``; a dash for a missing one."""
    return DASH if number is None else f"{number:,}"


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
