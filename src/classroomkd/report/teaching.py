"""The part of the page about *who taught what*: mentors over time, mentor × class, and both in words."""

from __future__ import annotations

import numpy as np

from classroomkd.report import charts_teaching as draw
from classroomkd.report import vocabulary as words
from classroomkd.report.chart_helpers import unique
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, details, el, join, lead, prose, section, table
from classroomkd.report.records import MEASURES, Activity, ArmLog, Array, Teaching, nan_mean
from classroomkd.report.vocabulary import Vocabulary
from classroomkd.tasks.metric import FRACTION

__all__ = ["ramp", "teaching"]

TITLE = "Who taught what"
OPEN = 3  # arms whose charts are drawn at once; the others unfold


def teaching(context: ReportContext) -> Html:
    """One block an arm that recorded weights; says so when there is none."""
    recorded = context.recorded()
    if not recorded:
        return section("teaching", TITLE, lead(_why_nothing(context)))
    text = (
        f"A mentor is active on a {context.say.spot} where the method lets it teach. "
        "Its weight is how strongly it then pulls, its temperature how softly: hotter means a wider gap to the student."
    )
    blocks = []
    for index, (log, taught) in enumerate(recorded):
        body = _constant(context, log) or join(
            [_over_time(context, log), _by_class(context, taught) if taught else None]
        )
        if index < OPEN:
            blocks.append(join([el("h3", log.label) if len(recorded) > 1 else None, body]))
        else:
            blocks.append(details(log.label, body))
    return section("teaching", TITLE, lead(text), *blocks)


def _why_nothing(context: ReportContext) -> str:
    if not context.summary.mentors:
        return "This run has no mentors."
    if not context.summary.entries:
        return "No student has finished yet, so nothing is recorded."
    return "No method of this run weighs its mentors, so every mentor taught everything alike."


def _constant(context: ReportContext, log: ArmLog) -> Html | None:
    """One sentence for a method that treats every mentor, sample and moment alike: its charts would be flat."""
    activity, values = log.activity, []
    if activity is None:
        return None
    for measure in MEASURES:
        logged = getattr(activity, measure)
        known = logged[np.isfinite(logged)]
        if known.size == 0 or float(np.ptp(known)) > 1e-6 * max(1.0, float(np.abs(known).max())):
            return None
        values.append(float(known[0]))
    share, weight, temperature = values
    text = (
        f"Every mentor alike, throughout: active on {100 * share:.0f} % of {context.say.spots}, weight {weight:.2f}, "
    )
    return el("p", prose(f"{text}temperature {temperature:.1f}."))


def _over_time(context: ReportContext, log: ArmLog) -> Html | None:
    activity = log.activity
    if activity is None:
        return None
    colours, say = context.hues(activity.mentors), context.say
    shapes = (
        ("active", f"Active, % of {say.spots}", "grey: no mentor was active", 100.0),
        ("weight", "Mean weight", f"over all {say.spots}, 0 where inactive", 1.0),
        ("temperature", "Mean temperature", f"over the {say.spots} it was active on", 1.0),
    )
    has_nobody = bool(np.isfinite(activity.none_active).any())
    figures = []
    for measure, title, subtitle, scale in shapes:
        if not np.isfinite(getattr(activity, measure)).any():
            continue
        chart = draw.over_time(activity, measure, title, colours, context.ink, scale=scale)
        note = subtitle if measure != "active" or has_nobody else ""
        figures.append(card(context.figure(title, note, chart, "Start and end are in the table below.")))
    text, cells = _who(activity, say), _start_and_end(context, activity, colours)
    legend = context.legend(activity.mentors, colours, dashes=True)
    return el("div", el("p", prose(text)), legend, el("div", *figures, class_="grid three"), card(cells))


def _start_and_end(context: ReportContext, activity: Activity, colours: list[str]) -> Html:
    titles = ("active %, start → end", "weight, start → end", "temperature, start → end")
    rows = []
    for m, (name, colour) in enumerate(zip(activity.mentors, colours, strict=True)):
        cells = [_arrow(activity.active[m] * 100, 0), _arrow(activity.weight[m], 2), _arrow(activity.temperature[m], 1)]
        rows.append([context.named(colour, name), *cells])
    if np.isfinite(activity.none_active).any():
        nobody = context.named(context.ink.alone, draw.NOBODY)
        rows.append([nobody, _arrow(activity.none_active * 100, 0), words.DASH, words.DASH])
    columns = [("mentor", ""), *((title, "num") for title in titles)]
    return table(columns, rows, "Mentors over time, first and last tenth of training")


def _who(activity: Activity, say: Vocabulary) -> str:
    share = nan_mean(activity.active, -1)
    if not np.isfinite(share).any():
        return ""
    order = [int(m) for m in np.argsort(-np.nan_to_num(share, nan=-1.0)) if np.isfinite(share[m])]
    listed = ", ".join(f"{activity.mentors[m]} on {100 * share[m]:.0f} %" for m in order[:6])
    text = f"Over the whole training, active were: {listed}" + (" and others less." if len(order) > 6 else ".")
    nobody = nan_mean(activity.none_active, -1)
    if np.isfinite(nobody):
        end = _ends(activity.none_active)[1]
        text += f" On {100 * nobody:.0f} % of {say.spots} no mentor was active ({100 * end:.0f} % at the end)."
    return text


def _by_class(context: ReportContext, taught: Teaching) -> Html:
    keep = draw.pick_classes(taught.active)
    names = unique(taught.classes)
    shown = [names[k] for k in keep]
    own, say = _own_accuracy(context, taught), context.say
    sign, factor = say.measure.sign, say.measure.factor
    top, decimals = (100.0, 0) if say.measure.unit == FRACTION else (None, 1)
    panels = [
        (f"Active, % of the {say.unit}", say.share_of, 100 * taught.active, 100.0, 0),
        ("Mean weight", f"over all {say.whole}", taught.weight, None, 2),
        (f"Own test {say.by_unit}, {sign}", f"of the mentor on the {say.unit}", factor * own, top, decimals),
    ]
    figures = []
    for title, subtitle, values, most, digits in panels:
        if not np.isfinite(values).any():
            continue
        chart = draw.heat(
            values[:, keep], taught.mentors, shown, title, context.ink, top=most, decimals=digits, say=say
        )
        largest = float(np.nanmax(values)) if most is None else most
        strongest = _strongest(values, taught.mentors, names, say)
        shades = ramp(context, largest, digits)
        figures.append(card(context.figure(title, subtitle, chart, strongest, after=shades)))
    text = _agreement(taught.active, own, say)
    text += f" Averaged over training and {taught.seeds} seed{'s' * (taught.seeds != 1)}."
    if len(keep) < len(names):
        text += f" Drawn are the {len(keep)} of {len(names)} {say.units} on which the mentors' shares differ most."
    return el("div", el("p", prose(text.strip())), el("div", *figures, class_="grid three"))


def _own_accuracy(context: ReportContext, taught: Teaching) -> Array:
    """Each mentor's test accuracy by class, (M, C), ``nan`` where it was not measured."""
    known = {mentor.name: mentor.per_class for mentor in context.summary.mentors}
    rows: Array = np.full(taught.active.shape, np.nan)
    for m, name in enumerate(taught.mentors):
        values = known.get(name) or []
        if len(values) == rows.shape[1]:
            rows[m] = [np.nan if value is None else value for value in values]
    return rows


def _agreement(active: Array, own: Array, say: Vocabulary) -> str:
    """In words: whether mentors were active where they are good, as a correlation over mentor × class or joint."""
    both = np.isfinite(active) & np.isfinite(own)
    if both.sum() < 6 or np.std(active[both]) < 1e-9 or np.std(own[both]) < 1e-9:
        return ""
    r = float(np.corrcoef(active[both], own[both])[0, 1])
    good = say.measure.rank(r)  # of errors, a low one is good
    how = "taught" if good > 0.5 else "taught somewhat more" if good > 0.2 else "did not teach"
    number = f"{r:.2f}".replace("-", "−")
    pairs = f"mentor × {say.unit} pairs"
    return f"Mentors {how} where they are good: over {pairs}, active share and own {say.by_unit} correlate at {number}."


def _strongest(values: Array, mentors: tuple[str, ...], classes: list[str], say: Vocabulary) -> str:
    filled = np.nan_to_num(values, nan=-np.inf)
    parts = [
        f"{name}: {classes[int(filled[m].argmax())]}" for m, name in enumerate(mentors) if np.isfinite(filled[m]).any()
    ]
    return f"Highest {say.unit} of each mentor: " + "; ".join(parts) + "."


def ramp(context: ReportContext, top: float, decimals: int) -> Html:
    """The shades of a heat map between 0 and its largest value."""
    steps = (el("i", style=f"background:{colour}") for colour in context.ink.ramp)
    return el("div", "0", el("span", *steps), f"{top:.{decimals}f}", class_="ramp", aria_hidden="true")


def _ends(values: Array) -> tuple[float, float]:
    """Means of the first and the last tenth (at least one point) of a line."""
    part = max(1, len(values) // 10)
    return float(nan_mean(values[:part], -1)), float(nan_mean(values[-part:], -1))


def _arrow(values: Array, decimals: int) -> str:
    first, last = _ends(values)
    return " → ".join(words.DASH if value != value else f"{value:.{decimals}f}" for value in (first, last))
