"""Charts of results: scores, differences, learning curves, classes, size.

Every function returns an Altair chart of one view (so it can take its container's width) whose marks carry their
values in an aria-label; colours come from an :class:`~classroomkd.report.style.Ink`. Percentages are 0..100 here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from classroomkd.report.chart_helpers import (
    colour_of,
    data,
    focus,
    lit,
    row_axis,
    row_height,
    score_axis,
    sized,
    tip,
    unique,
)
from classroomkd.report.records import ArmLog, Curve
from classroomkd.report.rows import Row
from classroomkd.report.style import Ink
from classroomkd.report.summary import Summary
from classroomkd.report.vocabulary import CLASSES, Vocabulary, vocabulary_of

__all__ = ["MAX_CLASSES", "by_epoch", "class_changes", "differences", "learning", "scores", "sizes"]

MAX_CLASSES = 100  # rows of a chart by class; more would be unreadable and are listed by how much they differ
SIGNED = "datum.value === 0 ? '0' : format(datum.value, '+~f')"
ROW = 34  # pixels of a row with an arm


def scores(summary: Summary, colours: Sequence[str], ink: Ink) -> Any:
    """One dot a seed and a bar at the mean, a row an arm; x is the test score in percent."""
    say = summary.say
    labels = [arm.label for arm in summary.arms]
    dots = [
        {"arm": arm, "seed": seed, say.key: say.measure.factor * value}
        for arm in labels
        for seed, value in summary.scores(arm).items()
        if value is not None
    ]
    score, mean = f"{say.key}:Q", f"mean({say.key}):Q"
    base = alt.Chart(data(dots)).encode(y=row_axis("arm:N", labels), color=colour_of("arm:N", labels, colours))
    points = base.mark_circle(size=70, opacity=0.55).encode(
        x=score_axis(alt.X, score, 5), tooltip=["arm:N", "seed:N", tip(score, ".2f", say.metric_and_sign)]
    )
    means = base.mark_tick(thickness=3, size=24).encode(
        x=alt.X(mean, scale=alt.Scale(zero=False)), tooltip=["arm:N", tip(mean, ".2f", f"mean {say.measure.sign}")]
    )
    return sized(points + means, ROW * len(labels), f"Test {say.metric} of every seed, with the mean, by arm")


def differences(rows: Sequence[Row], baseline: str, ink: Ink) -> Any | None:
    """Paired differences to one baseline with their 95 % intervals, in points; ``None`` when there are none.

    Every arm keeps its row, the baseline an empty one, so that the chart lines up with :func:`scores` beside it.
    """
    labels = [row["arm"] for row in rows]
    factor = vocabulary_of(rows).measure.factor
    gaps = []
    for row in rows:
        difference = row["vs"].get(baseline)
        if difference and difference["mean"] is not None:
            mean, low, high = (difference[key] for key in ("mean", "low", "high"))
            ends = (mean, mean) if low is None else (low, high)  # one seed has no interval
            figures = {"points": factor * mean, "low": factor * ends[0], "high": factor * ends[1]}
            gaps.append({"arm": row["arm"], **figures, "seeds": difference["n"], "says": difference["verdict"]})
    if not gaps:
        return None
    colour = colour_of("says:N", ["gain", "loss", "unclear", "one seed"], [ink.gain, ink.loss, ink.muted, ink.muted])
    tips = ["arm:N", *(tip(f"{name}:Q", "+.2f") for name in ("points", "low", "high")), "seeds:Q", "says:N"]
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(color=ink.muted, strokeDash=[3, 3]).encode(x="zero:Q")
    base = alt.Chart(data(gaps)).encode(y=row_axis("arm:N", labels), color=colour)
    x = alt.X("low:Q", title=None, scale=alt.Scale(padding=12), axis=alt.Axis(tickCount=4, labelExpr=SIGNED))
    spans = base.mark_rule(strokeWidth=3, strokeCap="round").encode(x=x, x2="high:Q", tooltip=tips)
    dots = base.mark_point(size=80, filled=True, opacity=1).encode(x="points:Q", tooltip=tips)
    return sized(zero + spans + dots, ROW * len(labels), f"Difference to {baseline} with 95 % interval, by arm")


def learning(
    logs: Sequence[ArmLog], colours: Sequence[str], start: float = 0.0, say: Vocabulary = CLASSES
) -> Any | None:
    """Validation score by epoch: the mean over seeds strong, each seed faint; ``None`` without logs.

    ``start`` is the epoch to begin at: a later one brings out the end, where curves lie close.
    """
    seeds, means, shown = [], [], {}
    for log, hue in zip(logs, colours, strict=True):
        if log.mean_accuracy is None:
            continue
        shown[log.label] = hue
        means += [point | {"arm": log.label} for point in _points(log.mean_accuracy, 300, start, say)]
        for seed, curve in log.accuracy.items():
            seeds += [point | {"arm": log.label, "seed": seed} for point in _points(curve, 100, start, say)]
    if not shown:
        return None
    colour = colour_of("arm:N", list(shown), list(shown.values()))
    scale = alt.Scale(zero=start == 0, nice=False)
    x = alt.X("epoch:Q", title="epoch", scale=scale, axis=alt.Axis(grid=False, tickCount=6))
    y = score_axis(alt.Y, f"{say.key}:Q", 6, padding=None)

    def lines(points: Sequence[Mapping[str, Any]]) -> Any:
        return alt.Chart(data(points)).encode(x=x, y=y, color=colour)

    faint = lines(seeds).mark_line(strokeWidth=1).encode(detail="seed:N", opacity=lit("arm", 0.22, 0.04))
    strong = lines(means).mark_line(strokeWidth=2.5).encode(opacity=lit("arm", 1, 0.12))
    score = tip(f"{say.key}:Q", ".1f", f"val {say.val} {say.measure.sign}")
    points = lines(means).mark_point(size=60, opacity=0).encode(tooltip=["arm:N", "epoch:Q", score])
    layers = faint + strong + points
    begun = [
        {"arm": log.label, "stage": name, "epoch": epoch}
        for log in logs
        for name, epoch in log.stages[1:]
        if log.label in shown and epoch >= start
    ]
    if begun:
        rules = alt.Chart(data(begun)).mark_rule(strokeDash=[4, 4], strokeWidth=1.5)
        layers += rules.encode(
            x=x, color=colour, opacity=lit("arm", 0.7, 0.08), tooltip=["arm:N", "stage:N", "epoch:Q"]
        )
    return sized(layers, 300, f"Validation {say.val} by epoch, by arm").add_params(focus())


def by_epoch(curves: Mapping[str, Curve], colours: Sequence[str], what: str, say: Vocabulary = CLASSES) -> Any:
    """Lines by epoch, one a name, in percent or the score's unit; ``what`` they are, for tooltips and readers."""
    rows = [point | {"network": name} for name, curve in curves.items() for point in _points(curve, 300, 0.0, say)]
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(grid=False, tickCount=6))
    y = score_axis(alt.Y, f"{say.key}:Q", 6, padding=None)
    colour = colour_of("network:N", list(curves), colours)
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=colour)
    line = base.mark_line(strokeWidth=2.5).encode(opacity=lit("network", 1, 0.12))
    points = base.mark_point(size=60, opacity=0).encode(
        tooltip=["network:N", "epoch:Q", tip(f"{say.key}:Q", ".1f", what)]
    )
    return sized(line + points, 300, f"{what} by epoch").add_params(focus())


def class_changes(
    classes: Sequence[str],
    values: Mapping[str, Any],
    colours: Mapping[str, str],
    pair: tuple[str, str],
    ink: Ink,
    say: Vocabulary = CLASSES,
) -> Any:
    """A row a class or joint: test score of each arm in ``values`` (label -> (C,) fractions), a line over the change.

    ``pair`` are the two arms the line joins: the student alone and the taught one.
    """
    names, factor = unique(classes), say.measure.factor
    dots = [
        {say.unit: name, "arm": label, say.key: factor * float(mean)}
        for label, means in values.items()
        for name, mean in zip(names, means, strict=True)
        if mean == mean
    ]
    before, after = (values[label] for label in pair)
    spans = []
    for name, a, b in zip(names, before, after, strict=True):
        if a == a and b == b:
            ends = {"from": factor * float(a), "to": factor * float(b), "change": factor * float(b - a)}
            spans.append({say.unit: name, **ends, "up": bool(say.measure.rank(b) >= say.measure.rank(a))})
    unit = f"{say.unit}:N"
    y = row_axis(unit, names)
    line = alt.Chart(data(spans)).mark_rule(strokeWidth=5, opacity=0.35)
    line = line.encode(
        x=score_axis(alt.X, "from:Q", 6),
        x2="to:Q",
        y=y,
        color=alt.condition("datum.up", alt.value(ink.gain), alt.value(ink.loss)),
        tooltip=[unit, tip("from:Q", ".1f"), tip("to:Q", ".1f"), tip("change:Q", "+.1f")],
    )
    points = alt.Chart(data(dots)).mark_circle(size=64)
    points = points.encode(
        x=f"{say.key}:Q",
        y=y,
        color=colour_of("arm:N", list(values), [colours[label] for label in values]),
        opacity=lit("arm", 1, 0.1),
        tooltip=[unit, "arm:N", tip(f"{say.key}:Q", ".1f", f"{say.by_unit} {say.measure.sign}")],
    )
    text = f"Test {say.by_unit} by {say.unit}, alone and taught"
    chart = sized(line + points, row_height(len(names)) * len(names), text)
    return chart.add_params(focus())


def sizes(summary: Summary, colours: Sequence[str], mentors: Sequence[str]) -> Any | None:
    """The score against parameters (log scale): mentors as squares, the student of each arm as a circle."""
    say = summary.say
    factor = say.measure.factor
    networks: list[dict[str, Any]] = [
        {"who": m.name, "role": "mentor", "parameters": m.parameters, say.key: factor * m.accuracy, "fill": colour}
        for m, colour in zip(summary.mentors, mentors, strict=True)
        if m.parameters and m.accuracy is not None
    ]
    for arm, colour in zip(summary.arms, colours, strict=True):
        values = [value for value in summary.scores(arm.label).values() if value is not None]
        if values and summary.student.parameters:
            size, score = summary.student.parameters, factor * sum(values) / len(values)
            networks.append({"who": arm.label, "role": "student", "parameters": size, say.key: score, "fill": colour})
    if len({row["role"] for row in networks}) < 2:
        return None
    axis = alt.Axis(format="~s", tickCount=4, grid=False)
    log_scale = alt.Scale(type="log", padding=16, nice=False)
    shapes = alt.Scale(domain=["student", "mentor"], range=["circle", "square"])
    chart = alt.Chart(data(networks)).mark_point(filled=True, size=130)
    chart = chart.encode(
        x=alt.X("parameters:Q", title="parameters", scale=log_scale, axis=axis),
        y=score_axis(alt.Y, f"{say.key}:Q", 5),
        color=colour_of("who:N", [row["who"] for row in networks], [row["fill"] for row in networks]),
        shape=alt.Shape("role:N", legend=None, scale=shapes),
        opacity=lit("who", 0.95, 0.1),
        tooltip=["who:N", "role:N", tip("parameters:Q", ","), tip(f"{say.key}:Q", ".1f", say.metric_and_sign)],
    )
    return sized(chart, 260, f"Test {say.metric} against parameters, mentors and student").add_params(focus())


def _points(curve: Curve, limit: int, start: float, say: Vocabulary) -> list[dict[str, float]]:
    step = max(1, -(-len(curve) // limit))
    keep = sorted({*range(0, len(curve), step), len(curve) - 1}) if len(curve) else []
    pairs = [(float(curve.x[k]), say.measure.factor * float(curve.y[k])) for k in keep]
    return [{"epoch": x, say.key: y} for x, y in pairs if y == y and x >= start]
