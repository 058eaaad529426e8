"""The small parts charts are made of: inline data, axes, series colours, the parameter a legend sets.

This imports Altair, so only what draws imports this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from classroomkd.report.vocabulary import shorten

__all__ = [
    "colour_of",
    "data",
    "focus",
    "lit",
    "row_axis",
    "row_height",
    "score_axis",
    "short_labels",
    "sized",
    "tip",
    "unique",
]


def row_height(classes: int) -> int:
    """Pixels of a class row: roomy for few, as small as labels allow for many."""
    return 26 if classes <= 20 else 17 if classes <= 50 else 13


def unique(names: Sequence[str]) -> list[str]:
    """Class names as chart keys: an empty or repeated one gets its number."""
    return [name if name and names.count(name) == 1 else f"{name} #{index}".strip() for index, name in enumerate(names)]


def data(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as inline data, numbers rounded to five digits (a page is read, not computed with)."""
    return alt.InlineData(values=[{key: _short(value) for key, value in row.items()} for row in rows])


def focus() -> Any:
    """The parameter a legend sets to light up one series (``null``: all)."""
    return alt.param(name="focus", value=None)


def lit(field: str, bright: float, dim: float) -> Any:
    """An opacity: ``bright`` for rows of the series in focus, ``dim`` for the others."""
    return alt.condition(f"focus === null || datum.{field} === focus", alt.value(bright), alt.value(dim))


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if value == value else None


def row_axis(field: str, labels: Sequence[str], *, grid: bool = True, padding: float = 0.0) -> Any:
    """A y encoding with one labelled row for each of ``labels``, in their order."""
    axis = alt.Axis(
        title=None,
        labelExpr=short_labels(labels, 16),
        labelLimit=130,
        labelFontSize=12 if len(labels) <= 50 else 10,
        labelOverlap=False,
        ticks=False,
        domain=False,
        grid=grid,
    )
    scale = alt.Scale(domain=list(labels), paddingInner=padding)
    return alt.Y(field, sort=list(labels), scale=scale, axis=axis)


def score_axis(encoding: Any, field: str, ticks: int, *, padding: float | None = 12) -> Any:
    """An untitled x or y ``encoding`` (``alt.X``, ``alt.Y``) that need not begin at 0."""
    scale = alt.Scale(zero=False) if padding is None else alt.Scale(zero=False, padding=padding)
    return encoding(field, title=None, scale=scale, axis=alt.Axis(tickCount=ticks))


def tip(field: str, form: str, title: str | None = None) -> Any:
    """A number in a tooltip, written as the d3 format ``form``."""
    return alt.Tooltip(field, format=form, **({} if title is None else {"title": title}))


def short_labels(labels: Sequence[str], width: int) -> str:
    """An axis label expression that cuts long names in the middle, where two of them are least likely to differ."""
    long = {label: shorten(label, width) for label in labels if len(label) > width}
    return f"({json.dumps(long)})[datum.value] || datum.value" if long else "datum.value"


def colour_of(field: str, labels: Sequence[str], colours: Sequence[str], *, legend: bool = False) -> Any:
    """A colour encoding with a fixed colour for each label; the page has its own legends, the picture wants one."""
    key = alt.Legend(title=None, orient="bottom", columns=2, symbolType="stroke") if legend else None
    return alt.Color(field, legend=key, scale=alt.Scale(domain=list(labels), range=list(colours)))


def sized(chart: Any, height: float, description: str) -> Any:
    """The chart as wide as its container, with a description for screen readers."""
    return chart.properties(width="container", height=height, description=description)
