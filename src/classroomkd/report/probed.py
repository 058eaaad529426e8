"""The part of the page about a probe: how good features are, and how like those of the mentors."""

from __future__ import annotations

from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, el, lead, section, table
from classroomkd.report.statistics import spread
from classroomkd.report.summary import Probe

__all__ = ["probed"]


def probed(context: ReportContext) -> Html:
    """The section; empty where nobody has asked `classroomkd probe`."""
    found = context.summary.probe
    if not found.students:
        return Html("")
    everybody = [student.figures for student in found.students] + [mentor.figures for mentor in found.mentors]
    names = list(dict.fromkeys(name for figures in everybody for name in figures))
    rows = []
    for arm, colour in zip(context.summary.arms, context.arm_colours, strict=False):
        its = [student.figures for student in found.students if student.method == arm.label]
        if its:
            known = [spread(figures.get(name) for figures in its) for name in names]
            cells = [words.plus_minus(one.mean, one.sd, context.decimals) for one in known]
            rows.append([context.named(colour, arm.label), *cells])
    for mentor, colour in zip(found.mentors, context.hues([mentor.name for mentor in found.mentors]), strict=True):
        cells = [words.percent(mentor.figures.get(name), context.decimals) for name in names]
        rows.append([context.named(colour, mentor.name, "mentor"), *cells])
    caption = el("figcaption", "Features", el("span", "mean ± standard deviation over seeds, %"))
    columns = [("network", ""), *((name, "num") for name in names)]
    return section("probe", "Probe", lead(_text(found)), card(el("figure", caption, table(columns, rows, "Features"))))


def _text(found: Probe) -> str:
    text = f"On {found.scored:,} images of {found.data}. "
    if found.fitted:
        text += (
            f"k-NN (k = {found.neighbours}, cosine) and linear classifier are accuracies of what is fitted on the "
            f"features of {found.fitted:,} labelled images; the network stays as it is. "
        )
    else:
        text += "No image has a label, so there is agreement alone. "
    chance = found.neighbours / (found.scored - 1) if found.scored > found.neighbours + 1 else 1.0
    return text + (
        f"Shared neighbours: of the {found.neighbours} nearest images in one network's features, those that are so in "
        f"the other's, too; by chance {chance:.1%}."
    )
