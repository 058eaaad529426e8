"""The part of the page with pictures: crops of persons, and everybody's joints drawn over them.

Drawn by Python as SVG over the crop; what is shown is chosen by checkboxes and CSS, so it works without script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from classroomkd.errors import UserError
from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.gallery_file import Gallery, Person, PersonAnswer, read_gallery
from classroomkd.report.html import Html, el, lead, note, section, stroke, swatch, table
from classroomkd.report.style import svg_dash

__all__ = ["Series", "pictures", "toggles"]

SIDE = 400  # units of a drawing's longer side, so that places are whole numbers
SURE = 0.2  # answers less sure of a joint than this are drawn hollow
TRUTH, ALONE = "truth", "student alone"
Places = Sequence[tuple[float, float, float] | None]


@dataclass(frozen=True)
class Series:
    """One series over the crops: its ``index`` in a person's answers (None: the truth), and whether it is on at
    first."""

    name: str
    colour: str
    dash: str | None
    index: int | None
    on: bool


def toggles(count: int) -> str:
    """The CSS by which the ``count`` checkboxes hide their series."""
    return "\n".join(f"#pictures:has(#show-{k}:not(:checked)) .k{k} {{ display: none; }}" for k in range(count))


def pictures(context: ReportContext) -> tuple[Html, int]:
    """The section and how many series it has; empty and 0 where the run kept nothing."""
    try:
        gallery = read_gallery(context.summary.root)
    except UserError as error:
        return section("pictures", "Pictures", note(str(error))), 0
    if gallery is None or not gallery.persons:
        return Html(""), 0
    series = _series(context, gallery)
    blocks = [lead(_intro(gallery)), _switches(series)]
    for chosen, title in (("worst", f"Worst of {gallery.headline}"), ("random", "Drawn at random")):
        persons = [person for person in gallery.persons if person.chosen == chosen]
        if persons:
            cards = [_person(gallery, person, series, k + 1) for k, person in enumerate(persons)]
            blocks += [el("h3", title), el("div", *cards, class_="crops")]
    return section("pictures", "Pictures", *blocks), len(series)


def _series(context: ReportContext, gallery: Gallery) -> list[Series]:
    """Truth, the student alone, the headline's, then every mentor; only those that the run still knows."""
    known = {row["arm"] for row in context.rows}
    shown = [context.alone.label if context.alone else "", gallery.headline, (context.main or {}).get("arm", "")]
    series = [Series(TRUTH, context.ink.ink, None, None, True)]
    for arm in dict.fromkeys(shown):
        for index, who in enumerate(gallery.who):
            if who.kind == "student" and who.name == arm and arm in known:
                name = ALONE if context.alone and arm == context.alone.label else arm
                series.append(Series(name, context.colour(arm), None, index, True))
    mentors = [(index, who.name) for index, who in enumerate(gallery.who) if who.kind == "mentor"]
    hues = context.hues([name for _, name in mentors])
    for k, ((index, name), hue) in enumerate(zip(mentors, hues, strict=True)):
        series.append(Series(name, hue, svg_dash(k, context.ink, 2), index, False))
    return series


def _intro(gallery: Gallery) -> str:
    worst = sum(person.chosen == "worst" for person in gallery.persons)
    flip = " Students are shown with the flip test, mentors without." if gallery.flip_test else ""
    if not any(answer.of for person in gallery.persons for answer in person.answers):
        return (
            f"Persons of the test part, of whom nobody has labelled a joint: {len(gallery.persons)} of "
            f"{gallery.test:,}, drawn at random and cropped as the student sees them. Hollow dots are joints of which "
            f"an answer is less than {100 * SURE:.0f} % sure.{flip}"
        )
    text = (
        f"Persons of the test part, cropped as the student sees them: the {worst} that {gallery.headline} (seed "
        f"{gallery.seed}) places worst, by the mean distance of labelled joints in shares of the box's longer side, "
        f"and {len(gallery.persons) - worst} of the other {gallery.test - worst:,}, drawn at random. Hollow dots are "
        f"joints that are hidden (truth) or of which an answer is less than {100 * SURE:.0f} % sure. Under each crop: "
        f"the person's OKS, and how many labelled joints are right by {gallery.right_by}."
    )
    return text + flip


def _switches(series: Sequence[Series]) -> Html:
    """A checkbox a series: what is ticked is drawn."""
    items = []
    for k, one in enumerate(series):
        box = el("input", type="checkbox", id=f"show-{k}", checked=one.on)
        items.append(el("label", box, stroke(f"stroke:{one.colour}", one.dash), one.name))
    return el("fieldset", el("legend", "Drawn over the crops"), *items, class_="switches")


def _person(gallery: Gallery, person: Person, series: Sequence[Series], number: int) -> Html:
    height, width = gallery.size
    scale = SIDE / max(height, width)
    box = (round(width * scale), round(height * scale))
    image = el("image", href=person.crop, width=str(box[0]), height=str(box[1]), preserveAspectRatio="none")
    layers = [_layer(gallery, person, one, k, scale) for k, one in enumerate(series)]
    layers.append(layers.pop(0))  # the truth over all others, thinner
    answers = [(one, person.answers[one.index]) for one in series if one.index is not None]
    figures = "; ".join(f"{one.name} {_figures(answer)}" for one, answer in answers)
    name = f"{number}. {words.shorten(person.image or f'person {person.id}', 24)}"
    label = f"Person {number} ({person.chosen}), {person.image}: {figures}."
    drawing = el("svg", image, *layers, viewBox=f"0 0 {box[0]} {box[1]}", role="img", aria_label=label)
    rows = []
    for one, answer in answers:
        key = swatch(one.colour, "alone" if one.name == ALONE else words.shorten(one.name, 18))
        rows.append([key, *_cells(answer)])
    cells = table([("who", ""), ("OKS", "num"), ("right", "num")], rows, f"Person {number}: what each network found")
    more = f"error {words.percent(person.error, 0)} % of the box" if person.error is not None else None
    return el("figure", drawing, el("figcaption", name, el("span", more) if more else None), cells, class_="crop")


def _cells(answer: PersonAnswer) -> list[str]:
    right = words.DASH if answer.right is None else f"{answer.right}/{answer.of}"
    return [words.DASH if answer.oks is None else f"{answer.oks:.2f}", right]


def _figures(answer: PersonAnswer) -> str:
    oks, right = _cells(answer)
    return f"OKS {oks}, {right.replace('/', ' of ')} joints right"


def _layer(gallery: Gallery, person: Person, one: Series, index: int, scale: float) -> Html:
    """Links, dots and hollow dots of one series, each a path; light or dark behind them, so that any photo will do."""
    joints: Places = person.truth if one.index is None else person.answers[one.index].joints
    sure = 2.0 if one.index is None else SURE
    spots = [
        None if joint is None or (one.index is None and joint[2] == 0) else tuple(_unit(v, scale) for v in joint[:2])
        for joint in joints
    ]
    bones = [(spots[a], spots[b]) for a, b in gallery.skeleton.links]
    unsure = [spot if joint and joint[2] < sure else None for spot, joint in zip(spots, joints, strict=True)]
    links = "".join(f"M{a[0]} {a[1]}L{b[0]} {b[1]}" for a, b in bones if a and b)
    dots, holes = ("".join(f"M{spot[0]} {spot[1]}h0" for spot in drawn if spot) for drawn in (spots, unsure))
    shapes = (("halo", links), ("rim", dots), ("bone", links), ("dot", dots), ("hole", holes))
    paths = [
        el("path", class_=kind, d=path, stroke_dasharray=one.dash if kind == "bone" else None)
        for kind, path in shapes
        if path
    ]
    return el("g", *paths, class_=f"k{index}" + " truth" * (one.index is None), style=f"--c:{one.colour}")


def _unit(place: float, scale: float) -> int:
    """A place in input pixels (centres at whole numbers) in units of the drawing."""
    return round((place + 0.5) * scale)
