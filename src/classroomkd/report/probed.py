"""The part of the page about a probe: how good features are, and how like those of the mentors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, el, lead, section, table
from classroomkd.report.statistics import spread
from classroomkd.report.summary import SAME, SHARED, Probe

__all__ = ["probed"]

Rows = Sequence[tuple[Html, Sequence[Mapping[str, float]]]]  # what stands before a row, and the figures of every seed


def probed(context: ReportContext) -> Html:
    """The section; empty where nobody has asked `classroomkd probe`."""
    found = context.summary.probe
    if not found.students:
        return Html("")
    arms = [
        (
            context.named(colour, arm.label),
            [student.figures for student in found.students if student.method == arm.label],
        )
        for arm, colour in zip(context.summary.arms, context.arm_colours, strict=False)
    ]
    arms = [(label, its) for label, its in arms if its]
    hues = context.hues([mentor.name for mentor in found.mentors])
    mentors = [
        (context.named(colour, mentor.name, "mentor"), [mentor.figures])
        for mentor, colour in zip(found.mentors, hues, strict=True)
    ]
    of_pairs = {f"{what} {mentor.name}" for what in (SAME, SHARED) for mentor in found.mentors}
    known = dict.fromkeys(name for _, its in arms + mentors for figures in its for name in figures)
    blocks = [_table(context, "Features", arms + mentors, {name: (name,) for name in known if name not in of_pairs})]
    if mentors:
        pairs = {mentor.name: (f"{SAME} {mentor.name}", f"{SHARED} {mentor.name}") for mentor in found.mentors}
        blocks.append(_table(context, "With each mentor: the same class / shared neighbours", arms, pairs))
    return section("probe", "Probe", lead(_text(found)), *blocks)


def _table(context: ReportContext, title: str, rows: Rows, columns: Mapping[str, Sequence[str]]) -> Html:
    """A row a network; in each column its figures of these names."""
    cells = []
    for label, its in rows:
        spreads = [[spread(figures.get(name) for figures in its) for name in names] for names in columns.values()]
        shown = [" / ".join(words.plus_minus(s.mean, s.sd, context.decimals) for s in cell) for cell in spreads]
        cells.append([label, *shown])
    caption = el("figcaption", title, el("span", "mean ± standard deviation over seeds, %"))
    return card(el("figure", caption, table([("network", ""), *((name, "num") for name in columns)], cells, title)))


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
