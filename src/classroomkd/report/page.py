"""``report.html``: one file that opens offline, in light and dark, on a phone and on paper, with scripts off too.

The Vega library is inlined once, charts are Vega-Lite specs in one block of JSON. A content-security policy admits
the two scripts by their hash and nothing else, and no connection at all: names from the user's folders cannot become
code, and the file cannot call home.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from pathlib import Path

from classroomkd import __version__
from classroomkd._sums import write_listed
from classroomkd.report import sections
from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.gallery import pictures, toggles
from classroomkd.report.headline import cautions, headline, verdict
from classroomkd.report.html import Html, el, json_for_script, prose
from classroomkd.report.labels import labels, seen
from classroomkd.report.licences import NOTICE
from classroomkd.report.probed import probed
from classroomkd.report.style import config, css_variables, page_ink
from classroomkd.report.summary import Summary, load_summary
from classroomkd.report.teaching import teaching
from classroomkd.report.trainees import trainees

__all__ = ["write_report"]


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into ``run_folder`` (atomically) and return its path.

    Works for unfinished runs: what is missing is said in the page. Raises :class:`~classroomkd.errors.UserError`
    when the folder holds no readable ``summary.json``.
    """
    summary = load_summary(run_folder)
    path = summary.root / "report.html"
    write_listed(path, _page(summary))
    return path


def _page(summary: Summary) -> str:
    context = ReportContext.of(summary, page_ink())
    gallery, series = pictures(context)
    parts = [
        sections.outcome(context),
        sections.mentors(context),
        labels(context),
        probed(context),
        sections.learning(context),
        trainees(context),
        teaching(context),
        sections.classes(context),
        gallery,
        sections.cost(context),
        sections.settings(context),
    ]
    body = [_header(context), _navigation(context, parts), el("main", *parts), _footer(summary)]
    library, script = _library(), _asset("page.js")
    blocks = [
        el("script", json_for_script(context.specs), type="application/json", id="charts"),
        el("script", json_for_script(config(context.ink)), type="application/json", id="config"),
        Html(f"<!--{NOTICE}-->"),
        el("script", Html(library)),
        el("script", Html(script)),
    ]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src '{_hash(library)}' '{_hash(script)}'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content=f"classroomkd {__version__}"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{summary.name or summary.root.name} · classroomkd"),
        el("style", Html(_style(series))),
    )
    return "<!doctype html>\n" + el("html", head, el("body", *body, *blocks), lang="en") + "\n"


def _header(context: ReportContext) -> Html:
    summary = context.summary
    title = f" · {summary.name or summary.root.name}"
    if summary.created:
        title += f" · {summary.created[:16].replace('T', ' ')}"
    parts = [el("p", el("b", "classroomkd"), title, class_="eyebrow"), el("h1", *_quiet(headline(context.main)))]
    if sentences := verdict(context.main, labels=summary.data.labelled != 0):
        parts.append(el("p", prose(" ".join(sentences)), class_="verdict"))
    parts.append(_facts(context))
    if warnings := cautions(summary, context.rows):
        listed = el("ul", *(el("li", prose(text)) for text in warnings))
        parts.append(el("aside", el("h2", "Before you quote it"), listed, class_="cautions"))
    return el("header", *parts)


def _quiet(sentence: str) -> list[str]:
    """The sentence with its intervals set lighter, so that the figures stand out."""
    parts = re.split(r"(\[[^\[\]]*\])", sentence)
    return [el("span", prose(part), class_="interval") if k % 2 else prose(part) for k, part in enumerate(parts)]


def _facts(context: ReportContext) -> Html:
    summary = context.summary
    data, student = summary.data, summary.student
    facts = [("Data", data.name or words.DASH, f"{len(data.classes)} {context.say.units}" if data.classes else "")]
    size = words.count(student.parameters)
    usual = f"{data.student_train:,} {context.say.seen}" if data.student_train else ""
    taught = seen(data, context.say) or usual
    facts.append(("Student", student.model or words.DASH, f"{size} parameters{', ' * bool(taught)}{taught}"))
    known = [mentor for mentor in summary.mentors if mentor.accuracy is not None]
    if known:
        measure = context.say.measure
        best = max(known, key=lambda mentor: measure.rank(mentor.accuracy or 0.0))
        score = f"{words.percent(best.accuracy, measure=measure)} {measure.sign}{context.say.suffix}"
        facts.append(("Best mentor", f"{best.name} {score}", f"{words.count(best.parameters)} parameters"))
    if summary.seeds():
        arms, seeds = len(summary.arms), len(summary.seeds())
        text = f"{len(summary.entries)} of {arms * seeds} students finished"
        facts.append(("Arms × seeds", f"{arms} × {seeds}", text))
    if context.main and context.main["cost_ratio"] is not None:
        facts.append(("Cost of a step", words.ratio(context.main["cost_ratio"]), "the student's step alone"))
    if summary.seconds:
        facts.append(("Whole run", words.duration(summary.seconds), ""))
    items = [
        el("div", el("dt", title), el("dd", text, el("span", more) if more else None)) for title, text, more in facts
    ]
    return el("dl", *items, class_="facts")


def _navigation(context: ReportContext, parts: list[Html]) -> Html:
    titles = {
        "result": "Result",
        "mentors": "Mentors",
        "labels": "Labels",
        "learning": "Learning",
        "trainees": "Trainees",
        "teaching": "Who taught what",
        "classes": context.say.units.capitalize(),
        "pictures": "Pictures",
        "cost": "Cost",
        "settings": "Settings",
    }
    there = [name for name in titles if any(f'id="{name}"' in part for part in parts)]
    links = [el("li", el("a", titles[name], href=f"#{name}")) for name in there]
    return el("nav", el("ul", *links), aria_label="Sections")


def _footer(summary: Summary) -> Html:
    folder = summary.root.name or "the run folder"
    text = f"Written by classroomkd {__version__} from {folder}/summary.json and its logs."
    return el("footer", f"{text} This file needs no network; charts by Vega-Lite (BSD-3-Clause).")


def _style(series: int) -> str:
    """The page's rules, and those of the pictures where it has ``series`` drawn over them."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {css_variables('dark')} }} }}"
    more = f"{_asset('gallery.css')}{toggles(series)}\n" if series else ""
    return f":root {{ {css_variables('light')} }}\n{dark}\n{_asset('page.css')}{more}"


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script; nothing in it may end the element it stands in."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
