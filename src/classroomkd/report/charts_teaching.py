"""Charts of *who taught what*: mentors over time, and mentor × class heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from classroomkd.report.chart_helpers import colour_of, data, focus, lit, row_axis, row_height, short_labels, sized, tip
from classroomkd.report.charts import MAX_CLASSES
from classroomkd.report.records import Activity, Array, thin
from classroomkd.report.style import Ink, dash_of
from classroomkd.report.vocabulary import CLASSES, Vocabulary

__all__ = ["CELLS_WITH_TEXT", "heat", "over_time", "pick_classes"]

CELLS_WITH_TEXT = 240
POINTS = 1000  # of a chart over time, shared by its lines: each carries a label for screen readers
NOBODY = "no mentor"


def over_time(
    activity: Activity,
    measure: str,
    title: str,
    colours: Sequence[str],
    ink: Ink,
    *,
    scale: float = 1.0,
    legend: bool = False,
) -> Any:
    """One line a mentor over epochs; for ``active`` also the share of samples that no mentor was active on (grey).

    ``measure`` is ``active`` (drawn in percent with ``scale=100``), ``weight`` or ``temperature``.
    """
    table: Array = getattr(activity, measure)
    limit = max(80, POINTS // max(1, len(table)))
    table, epochs = thin(table, limit), thin(activity.x, limit)

    def points(name: str, line: Array) -> list[dict[str, Any]]:
        pairs = zip(epochs, line, strict=True)
        return [{"epoch": float(x), "mentor": name, "value": scale * float(y)} for x, y in pairs if y == y]

    rows = [point for name, line in zip(activity.mentors, table, strict=True) for point in points(name, line)]
    domain = list(activity.mentors)
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(grid=False, tickCount=5))
    scale_y = alt.Scale(zero=measure != "temperature")
    y = alt.Y("value:Q", title=title, axis=alt.Axis(title=None, tickCount=5), scale=scale_y)
    colour = colour_of("mentor:N", domain, colours, legend=legend)
    dashes = [dash_of(index, ink) for index in range(len(domain))]
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=2.2).encode(
        opacity=lit("mentor", 1, 0.12),
        strokeDash=alt.StrokeDash("mentor:N", legend=None, scale=alt.Scale(domain=domain, range=dashes)),
    )
    tips = ["mentor:N", tip("epoch:Q", ".1f"), tip("value:Q", ".2f", title)]
    chart = lines + base.mark_point(size=40, opacity=0).encode(tooltip=tips)
    nobody = thin(activity.none_active, limit)
    if measure == "active" and np.isfinite(nobody).any():
        grey = {"color": ink.alone, "strokeWidth": 1.2}
        area = alt.Chart(data(points(NOBODY, nobody))).mark_area(color=ink.alone, opacity=0.25, line=grey)
        chart = area.encode(x=x, y=y, tooltip=tips) + chart
    return sized(chart, 210, f"{title} by epoch, one line a mentor").add_params(focus())


def heat(
    table: Array,
    mentors: Sequence[str],
    classes: Sequence[str],
    title: str,
    ink: Ink,
    *,
    top: float | None = None,
    decimals: int = 0,
    names_below: bool = False,
    say: Vocabulary = CLASSES,
    column: str = "mentor",
    upright: bool = False,
) -> Any:
    """A row a class or joint, a column a mentor, ``table`` (M, C) as shade and, where there is room, as number.

    ``column`` is what a column is, where it is no mentor; ``say.unit`` what a row is. ``upright``: names of columns
    stand, where slanted ones would reach out of the card.

    Shades are eight equal steps from 0 to ``top`` (the table's largest value when not given); ``nan`` stays empty.
    """
    finite = table[np.isfinite(table)]
    top = top if top is not None else float(finite.max()) if finite.size else 1.0
    top = top if top > 0 else 1.0
    middle = top * 4 / len(ink.ramp)
    written = len(mentors) * len(classes) <= CELLS_WITH_TEXT and len(mentors) <= 6
    cells = [
        {column: mentor, say.unit: name, "value": float(table[m, c])}
        | ({"high": bool(table[m, c] >= middle)} if written else {})
        for m, mentor in enumerate(mentors)
        for c, name in enumerate(classes)
        if np.isfinite(table[m, c])
    ]
    y = row_axis(f"{say.unit}:N", classes, grid=False, padding=0.06)
    names = alt.Axis(
        orient="bottom" if names_below else "top",
        title=None,
        labelExpr=short_labels(mentors, 16),
        labelAngle=-35 if len(mentors) <= 5 and not upright else -90,
        labelLimit=120,
        labelOverlap=False,
        ticks=False,
        domain=False,
    )
    x = alt.X(f"{column}:N", sort=list(mentors), scale=alt.Scale(domain=list(mentors), paddingInner=0.04), axis=names)
    base = alt.Chart(data(cells)).encode(x=x, y=y)
    steps = alt.Scale(type="quantize", domain=[0, top], range=list(ink.ramp))
    shade = alt.Color("value:Q", title=title, legend=None, scale=steps)
    tips = [f"{column}:N", f"{say.unit}:N", tip("value:Q", f".{max(decimals, 1)}f", title)]
    chart = base.mark_rect(cornerRadius=2).encode(color=shade, tooltip=tips)
    if written:
        chart += base.mark_text(fontSize=11, aria=False).encode(
            text=alt.Text("value:Q", format=f".{decimals}f"),
            color=alt.condition("datum.high", alt.value(ink.ramp_high), alt.value(ink.ramp_low)),
            tooltip=tips,
        )
    chart = sized(chart, row_height(len(classes)) * len(classes), f"{title}: a row a {say.unit}, a column a {column}")
    return chart.properties(padding={"left": 5, "top": 5, "right": 14, "bottom": 5})  # slanted labels reach out


def pick_classes(active: Array, limit: int = MAX_CLASSES) -> list[int]:
    """Which classes to draw: all, or the ``limit`` on which mentors' shares (M, C) differ the most, in class order."""
    count = active.shape[1]
    if count <= limit:
        return list(range(count))
    gap = np.nan_to_num(active, nan=0.0)
    order = np.argsort(-(gap.max(0) - gap.min(0)), kind="stable")[:limit]
    return sorted(int(index) for index in order)
