"""The part of the page about networks that learned together: each of them, the ensemble, how much they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from classroomkd.recipe.peer_section import TRAINED
from classroomkd.report import charts, charts_teaching
from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, el, join, lead, section, table
from classroomkd.report.records import ArmLog
from classroomkd.report.squares import Square
from classroomkd.report.statistics import spread
from classroomkd.report.summary import FinishedStudent, Variant
from classroomkd.report.teaching import ramp

__all__ = ["trainees"]

ENSEMBLE = "ensemble"
SLANTED = 8  # letters of the longest name that still leans over its column


def trainees(context: ReportContext) -> Html:
    """The section; empty where nothing was trained beside a student."""
    logs = [log for log in context.logs if any(entry.variants for entry in _entries(context, log))]
    if not logs:
        return Html("")
    text = (
        "Networks that learned together. The ensemble answers with the mean of the students' probabilities (of pose: "
        "of their distributions or maps); a teacher is no member. What it gains over its members is shown beside how "
        "often two of them differ, since networks that teach each other become alike."
    )
    return section("trainees", "Trainees", lead(text), *(_arm(context, log) for log in logs))


def _entries(context: ReportContext, log: ArmLog) -> list[FinishedStudent]:
    return [entry for entry in context.summary.entries if entry.method == log.label]


def _arm(context: ReportContext, log: ArmLog) -> Html:
    """The table of one arm and, where there are logs, its curves."""
    entries, say = _entries(context, log), context.say
    names = {(v.name, v.kind): v.role for entry in entries for v in entry.variants}
    rows = []
    for (name, kind), role in names.items():
        its = [v for entry in entries for v in entry.variants if (v.name, v.kind) == (name, kind)]
        scores = [spread(getattr(v, key) for v in its) for key in ("test_last", "test_best")]
        cells = [words.plus_minus(s.mean, s.sd, context.decimals, say.measure) for s in scores]
        what = "average (EMA)" if kind == "ema" else role or kind
        if kind in TRAINED and name == context.summary.exported(log.label):
            what += ", exported"
        rows.append([name, what, *cells])
    sign = say.measure.sign
    columns = [("network", ""), ("what", ""), (f"test {sign}", "num"), (f"at best val {sign}", "num")]
    caption = el("figcaption", log.label, el("span", "mean ± standard deviation over seeds"))
    blocks = [card(el("figure", caption, table(columns, rows, f"Trainees of {log.label}"), _gain(context, entries)))]
    if log.trainees:
        colours = context.hues(list(log.trainees))
        title = f"Validation {say.val}, {say.measure.sign}"
        listed = ", ".join(f"{n} {words.percent(float(c.y[-1]), measure=say.measure)}" for n, c in log.trainees.items())
        chart = charts.by_epoch(log.trainees, colours, f"val {say.val} {say.measure.sign}", say)
        legend = context.legend(list(log.trainees), colours)
        figures = [context.figure(title, f"{log.label}, mean over seeds", chart, f"At the end: {listed}.", legend)]
        if log.disagreement is not None:
            apart = {"pairs that differ": log.disagreement}
            chart = charts.by_epoch(apart, colours[:1], "pairs that differ, %")
            last = f"At the end: {words.percent(float(log.disagreement.y[-1]))}%."
            figures.append(context.figure("Pairs of trainees that differ, %", "on the validation part", chart, last))
        if log.square is not None:
            figures.append(_square(context, log.square))
        blocks.append(el("div", *map(card, figures), class_=f"grid {'three' if len(figures) > 2 else 'two'}"))
    return join(blocks)


def _square(context: ReportContext, square: Square) -> Html:
    """Who taught whom: a row who learns, a column who teaches."""
    values, names = square.values, square.names
    most = float(np.nanmax(values))
    decimals = max(2, min(4, 1 - math.floor(math.log10(most)))) if most > 0 else 2  # five letters: a narrow cell
    rows = replace(context.say, unit="learner")
    shown = values[:, : square.trainees]
    title, below = "Who taught whom", "what a column adds to a row's loss, mean over the last epoch"
    chart = charts_teaching.heat(
        shown,
        names,
        names[: square.trainees],
        title,
        context.ink,
        decimals=decimals,
        say=rows,
        column="teacher",
        upright=max(map(len, names)) > SLANTED,
    )
    pairs = [
        (float(values[t, place]), f"{names[place]} from {names[t]} {values[t, place]:.{decimals}f}")
        for place in range(square.trainees)
        for t in range(len(names))
        if np.isfinite(values[t, place])
    ]
    said = "; ".join(text for _, text in sorted(pairs, reverse=True)[:12])
    return context.figure(title, below, chart, f"The most: {said}.", after=ramp(context, most, decimals))


def _gain(context: ReportContext, entries: Sequence[FinishedStudent]) -> Html | None:
    """What the ensemble gains over the mean of its members, and how often two of them differ, in a sentence."""
    gains, apart = [], []
    for entry in entries:
        trainees = [v for v in entry.variants if v.kind in TRAINED and v.role != "teacher"]
        members = [v.test_last for v in trainees if v.test_last is not None]
        whole: list[Variant] = [v for v in entry.variants if v.kind == ENSEMBLE]
        if members and whole and whole[0].test_last is not None:
            gains.append(whole[0].test_last - sum(members) / len(members))
            apart.append(whole[0].disagreement)
    if not gains:
        return None
    gain = words.signed(spread(gains).mean or 0.0, context.decimals, context.say.measure)
    differ = spread(apart).mean
    text = f"The ensemble's test score less the mean of its members': {gain}."
    if differ is not None:
        text += f" Two of them differ on {words.percent(differ)}% of the test {context.say.spots}."
    return el("p", text)
