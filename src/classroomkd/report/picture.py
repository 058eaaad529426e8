"""A run as one picture for a README or a slide: scores of every seed, who was active over time, who taught what."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from classroomkd._files import atomic_write_bytes
from classroomkd._printable import printable
from classroomkd.errors import UserError
from classroomkd.report import charts, charts_teaching
from classroomkd.report import vocabulary as words
from classroomkd.report.chart_helpers import unique
from classroomkd.report.context import ReportContext
from classroomkd.report.headline import headline, verdict
from classroomkd.report.style import THEMES, config
from classroomkd.report.summary import load_summary

__all__ = ["write_picture"]

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # a picture cannot ask for the reader's own
HEIGHT = 270
SCALE = 2.0  # pixels of a PNG for each of the drawing's, for sharp screens
CLASSES = 20
LINE = 36  # characters of the headline above one panel


def write_picture(run_folder: str | Path, path: str | Path, *, theme: str = "light") -> Path:
    """Draw a run as ``path`` (``.png`` or ``.svg``) in ``theme`` (``light`` or ``dark``) and return the path.

    What the run has not got (mentors, weights) leaves its panel out. Raises
    :class:`~classroomkd.errors.UserError` for another ending or theme, or a folder without a readable summary.
    """
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{target}: a picture ends in .png or .svg.")
    if theme not in THEMES:
        raise UserError(f"theme {theme!r}: choose one of {', '.join(THEMES)}.")
    summary = load_summary(run_folder)
    spec = printable(_spec(ReportContext.of(summary, THEMES[theme])))
    import vl_convert

    if target.suffix.lower() == ".svg":
        content = vl_convert.vegalite_to_svg(spec).encode()
    else:
        content = vl_convert.vegalite_to_png(spec, scale=SCALE)
    atomic_write_bytes(target, content)
    return target


def _spec(context: ReportContext) -> dict[str, Any]:
    """One Vega-Lite spec of up to three panels beside each other."""
    ink, say = context.ink, context.say
    dots = charts.scores(context.summary, context.arm_colours, ink)
    panels = [_panel(dots, 250, f"Test {say.metric}, {say.measure.sign}", "a dot is one seed")]
    for log, taught in context.recorded()[:1]:
        if log.activity is not None:
            hues = context.hues(log.activity.mentors)
            lines = charts_teaching.over_time(log.activity, "active", "active %", hues, ink, scale=100, legend=True)
            subtitle = f"% of {say.spots} a mentor was active on; grey: none was"
            panels.append(_panel(lines, 280, "Who taught when", subtitle))
        if taught is not None:
            keep = charts_teaching.pick_classes(taught.active, CLASSES)
            classes = unique(taught.classes)
            shares, names = 100 * taught.active[:, keep], [classes[k] for k in keep]
            cells = charts_teaching.heat(
                shares, taught.mentors, names, "active %", ink, top=100, names_below=True, say=say
            )
            panels.append(_panel(cells, 230, "Who taught what", say.share))
    datasets: dict[str, Any] = {}
    for panel in panels:
        datasets |= panel.pop("datasets", {})
        for key in ("padding", "config", "params", "$schema"):  # said once, below
            panel.pop(key, None)
    settings = config(ink) | {"font": FONT, "background": ink.surface, "concat": {"spacing": 110}}
    settings["title"] = {"color": ink.ink, "subtitleColor": ink.muted, "anchor": "start", "fontSize": 13, "offset": 10}
    line = LINE * len(panels)
    head = {
        "text": _lines([headline(context.main)], line),
        "subtitle": _lines([" ".join(verdict(context.main)), _facts(context)], line * 4 // 3),
        "fontSize": 18,
        "subtitleFontSize": 13,
        "subtitlePadding": 6,
        "offset": 24,
        "anchor": "start",
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": head,
        "params": [{"name": "focus", "value": None}],
        "datasets": datasets,
        "hconcat": panels,
        "bounds": "flush",
        "padding": 24,
        "config": settings,
    }


def _panel(chart: Any, width: int, title: str, subtitle: str) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(width=width, height=HEIGHT).to_dict()
    return spec | {"title": {"text": title, "subtitle": subtitle, "frame": "group"}}


def _lines(texts: list[str], width: int) -> list[str]:
    """Each text on lines of at most ``width`` characters, broken after a semicolon where there is one."""
    lines: list[str] = []
    for text in filter(None, texts):
        parts = [text] if len(text) <= width else text.replace("; ", ";\n").split("\n")
        lines += [line for part in parts for line in textwrap.wrap(part, width)]
    return lines


def _facts(context: ReportContext) -> str:
    summary = context.summary
    model, seeds = summary.student.model, len(summary.seeds())
    facts = [
        f"{model} student, {words.count(summary.student.parameters)} parameters" if model else "",
        f"{len(summary.mentors)} mentors" if summary.mentors else "no mentors",
        summary.data.name,
        f"{seeds} seed{'s' * (seeds != 1)}",
    ]
    return ", ".join(filter(None, facts))
