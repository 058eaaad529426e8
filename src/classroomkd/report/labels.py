"""The part of the page about pictures without a label: how many, which to label next, and what no mentor knows."""

from __future__ import annotations

from classroomkd._printable import printable
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, el, lead, section, table
from classroomkd.report.summary import Data, Unlabelled
from classroomkd.report.vocabulary import Vocabulary

__all__ = ["labels", "seen"]

FILE = "to_label.csv"


def seen(data: Data, say: Vocabulary) -> str:
    """What the student was taught with, where some of it has no label: ``400 pictures, 40 of them labelled``."""
    samples = "pictures" if say.seen == Vocabulary.seen else say.seen
    if data.student_train is None or data.labelled is None or data.labelled >= data.student_train:
        return ""
    return f"{data.student_train:,} {samples}, {data.labelled:,} of them labelled".replace(" 0 of", " none of")


def labels(context: ReportContext) -> Html:
    """The section; empty where every picture has a label."""
    data, found = context.summary.data, context.summary.unlabelled
    if not (taught := seen(data, context.say)):
        return Html("")
    text = f"The student was taught with {taught}. "
    if not found.pictures:
        text += "The mentors were not asked about each of the others, so nothing is known of them here."
        return section("labels", "Labels", lead(text))
    blocks = [lead(text + _unknown(found))]
    if found.first:
        kept = [name for name in found.first[0] if name != "class"]
        rows = [[printable(row.get(name, "")) for name in kept] for row in found.first]
        columns = [(_title(name), "num" if place else "") for place, name in enumerate(kept)]
        caption = el("figcaption", "To label next", el("span", _caption(found)))
        blocks.append(card(el("figure", caption, table(columns, rows, "To label next"))))
    return section("labels", "Labels", *blocks)


def _unknown(found: Unlabelled) -> str:
    """How many pictures nobody knows, and what to do about them."""
    usual = "" if found.bound_is == "train.outliers" else " (the usual bound; train.outliers sets another)"
    share = found.unknown / found.pictures
    text = f"Nobody knows {found.unknown:,} of the {found.pictures:,} without a label ({share:.0%}): "
    text += (
        f"the entropy of the mentors' vote is above {found.bound:g} of the largest there is{usual}. "
        if _has_votes(found)
        else f"1 less the score of what all mentors say together is above {found.bound:g}{usual}. "
    )
    if not found.unknown:
        return text + "That says nothing of pictures on which all mentors are sure and wrong."
    return text + (
        "They are hard, or show something that the mentors do not know: look at them, and take such out or let "
        "train.outliers weigh them down."
    )


def _has_votes(found: Unlabelled) -> bool:
    """Whether what mentors agree on is a class."""
    return not found.first or "vote" in found.first[0]


def _title(name: str) -> str:
    known = {"vote": "the vote", "entropy": "entropy, of log C"}
    return known[name] if name in known else str(printable(name))


def _caption(found: Unlabelled) -> str:
    if not _has_votes(found):
        text = "the people about whose joints the mentors disagree most (1 less the mean OKS to what they agree on); "
        return text + f"{found.rows:,} are in {FILE}"
    text = "the pictures on which the mentors disagree most (mean KL of the mentors to their vote, nats); "
    text += f"{found.rows:,} are in {FILE}"
    named = "; with its column class filled in, data.labels: {file: FILE} reads the labels of a folder of pictures"
    return text + (named if "name" in found.first[0] else "")
