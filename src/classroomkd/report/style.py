"""Colours, once: the page's custom properties and the picture's hex values come from the same two themes.

Charts in the page are drawn with ``var(--…)``, so light, dark and print are CSS and nothing is drawn twice. The six
hues keep a distance of 14 or more (CIELAB) between any two under normal, deutan, protan and tritan vision, and a
contrast of 3 or more to the surface (the tests measure both); from the seventh series on the dash tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["THEMES", "Ink", "arm_colours", "config", "css_variables", "dash_of", "page_ink", "svg_dash"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
SOLID = [1, 0]
DASHES = (SOLID, [6, 3], [2, 2], [8, 3, 2, 3])


@dataclass(frozen=True)
class Ink:
    """The colours a chart or a page needs, as CSS values (hex or ``var(--name)``).

    ``hues`` are for series; ``ramp`` runs from nothing to much, on it ``ramp_low``/``ramp_high`` are the text colours
    of its lower and upper half.
    """

    page: str
    surface: str
    sunken: str
    ink: str
    muted: str
    rule: str
    grid: str
    accent: str
    alone: str
    average: str
    gain: str
    loss: str
    hues: tuple[str, ...]
    ramp: tuple[str, ...]
    ramp_low: str
    ramp_high: str


THEMES = {
    "light": Ink(
        page="#f6f7f9",
        surface="#ffffff",
        sunken="#f0f2f5",
        ink="#171b22",
        muted="#59636f",
        rule="#dce0e6",
        grid="#e9ecf0",
        accent="#4338ca",
        alone="#7f8997",
        average="#3d4856",
        gain="#0b7a55",
        loss="#b83a0a",
        hues=("#1b74d1", "#b83a0a", "#0f8f6a", "#d667b0", "#ae8e00", "#6d1b66"),
        ramp=("#f0f2fa", "#dbe1f4", "#bdc8ec", "#97a8e0", "#596ec8", "#4257b4", "#2b3b92", "#1b2668"),
        ramp_low="#171b22",
        ramp_high="#ffffff",
    ),
    "dark": Ink(
        page="#0f1216",
        surface="#171b21",
        sunken="#1f242c",
        ink="#e9ecf1",
        muted="#a0aab7",
        rule="#313944",
        grid="#262c35",
        accent="#a9a5ff",
        alone="#828d9c",
        average="#d3dae4",
        gain="#34c796",
        loss="#f4743b",
        hues=("#4f9df5", "#f4743b", "#22b98c", "#f7a1d4", "#f2dc6b", "#b265c9"),
        ramp=("#1d222c", "#232c40", "#2b3957", "#354a75", "#7388cc", "#8ea2e0", "#aebef0", "#d2dcfb"),
        ramp_low="#e9ecf1",
        ramp_high="#12161c",
    ),
}


def page_ink() -> Ink:
    """The colours as references to the page's custom properties."""
    values: dict[str, Any] = {}
    for name, colours in vars(THEMES["light"]).items():
        variable = name.replace("_", "-")
        several = isinstance(colours, tuple)
        values[name] = tuple(f"var(--{variable}-{k})" for k in range(len(colours))) if several else f"var(--{variable})"
    return Ink(**values)


def css_variables(theme: str) -> str:
    """The declarations of one theme: ``--page: #f6f7f9; …``."""
    parts = []
    for name, value in vars(THEMES[theme]).items():
        variable = name.replace("_", "-")
        if isinstance(value, tuple):
            parts += [f"--{variable}-{k}: {colour};" for k, colour in enumerate(value)]
        else:
            parts.append(f"--{variable}: {value};")
    return " ".join(parts)


def dash_of(index: int, ink: Ink) -> list[int]:
    """The dash of series ``index``: solid for the first six, then one more pattern for every six; ends at the fourth
    and begins anew."""
    return DASHES[(index // len(ink.hues)) % len(DASHES)]


def svg_dash(index: int, ink: Ink, times: int = 1) -> str | None:
    """:func:`dash_of` as SVG writes it, so many times as long; ``None`` for a solid line."""
    dash = dash_of(index, ink)
    return None if dash == SOLID else " ".join(str(times * part) for part in dash)


def arm_colours(methods: Sequence[str], ink: Ink, main: int | None = None) -> list[str]:
    """One colour an arm: the baselines are greys, the arm of the headline is the accent, the rest take the hues."""
    fixed = {"none": ink.alone, "average": ink.average}
    spare = [ink.hues[k] for k in (4, 3, 5, 0, 2, 1)]  # those that also mean gain and loss come last
    others = itertools.cycle(spare)
    colours = []
    for index, method in enumerate(methods):
        if index == main:
            colours.append(ink.accent)
        else:
            colours.append(fixed.pop(method) if method in fixed else next(others))
    return colours


def config(ink: Ink) -> dict[str, object]:
    """The Vega-Lite config shared by all charts."""
    text = {"labelColor": ink.muted, "titleColor": ink.muted, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": 400,
            "domainColor": ink.rule,
            "tickColor": ink.rule,
            "gridColor": ink.grid,
            "labelPadding": 6,
            "titlePadding": 8,
        },
        "axisXQuantitative": {"labelFlush": False},
        "legend": {**text, "titleFontWeight": 600, "symbolStrokeWidth": 2.5},
        "title": {"color": ink.ink, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10},
        "text": {"color": ink.ink, "fontSize": 12},
    }
