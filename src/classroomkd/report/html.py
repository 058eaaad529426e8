"""Building HTML without a template language: text is escaped, control characters included, unless it was built here.

``el("td", name, class_="num")`` is an element; plain strings among the children are text and come out escaped, only
:class:`Html` (what ``el`` returns) goes in as it is. So a class folder called ``<script>`` is shown, not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from classroomkd._printable import printable

__all__ = [
    "Html",
    "card",
    "details",
    "el",
    "join",
    "json_for_script",
    "lead",
    "note",
    "prose",
    "section",
    "stroke",
    "swatch",
    "table",
]

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Html(str):
    """Markup that is safe to insert: made by :func:`el`, or a constant of this package."""

    __slots__ = ()


def el(name: str, /, *children: str | None, **attributes: str | bool | None) -> Html:
    """An element; ``None`` children and ``None``/``False`` attributes are left out, ``class_`` means ``class``."""
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{escape(printable(str(value)), quote=True)}"')
    opening = "<" + " ".join(parts) + ">"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(printable(c)) for c in children if c is not None))


def prose(text: str) -> str:
    """Text whose numbers keep their signs at the end of a line: no break before ``%`` or around ``±``."""
    return text.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0")


def section(name: str, title: str, *children: str | None) -> Html:
    """A part of the page under its heading; ``name`` is its anchor."""
    return el("section", el("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def lead(text: str) -> Html:
    """The paragraph that begins a section."""
    return el("p", prose(text), class_="lead")


def note(text: str) -> Html:
    """A remark in small print."""
    return el("p", text, class_="note")


def details(title: str, *children: str | None) -> Html:
    """A part that unfolds under its title."""
    return el("details", el("summary", title), *children)


def card(*children: str | None) -> Html:
    """A box of its own."""
    return el("div", *children, class_="card")


def stroke(style: str, dash: str | None) -> Html:
    """A short line as it is drawn in a chart, the key of a series."""
    line = el("line", x1="0", y1="6", x2="24", y2="6", style=style, stroke_dasharray=dash)
    return el("svg", line, viewBox="0 0 24 12", aria_hidden="true")


def swatch(colour: str, *label: str | None) -> Html:
    """The name of a series in a table: a small square of its colour and the label."""
    square = el("i", class_="swatch", style=f"background:{colour}", aria_hidden="true")
    return el("span", square, el("span", *label), class_="name")


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str | None]], caption: str) -> Html:
    """A table that scrolls sideways inside its box; the first column holds the row headings.

    ``columns`` are ``(title, kind)``, kind one of ``""`` (text), ``"num"`` (right-aligned) and ``"wrap"`` (text
    that may break); ``caption`` is read by screen readers.
    """
    head = el("tr", *(el("th", title, scope="col", class_=kind or None) for title, kind in columns))
    body = []
    for first, *others in rows:
        cells = (el("td", cell, class_=kind or None) for cell, (_, kind) in zip(others, columns[1:], strict=True))
        body.append(el("tr", el("th", first, scope="row"), *cells))
    inner = el("table", el("caption", caption), el("thead", head), el("tbody", *body))
    return el("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def json_for_script(value: Any) -> Html:
    """JSON that may stand in a ``<script>`` element: no ``<`` can end it, and ``nan`` is refused."""
    text = json.dumps(printable(value, keep="\u2028\u2029"), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Html(text)
