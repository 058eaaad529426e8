"""What the parts of a page share: the run, read once, and the charts drawn so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from classroomkd.report import vocabulary as words
from classroomkd.report.headline import main_arm
from classroomkd.report.html import Html, el, stroke, swatch
from classroomkd.report.records import ArmLog, Teaching, read_run
from classroomkd.report.rows import Row, find_baseline, result_rows
from classroomkd.report.style import Ink, arm_colours, svg_dash
from classroomkd.report.summary import ArmInfo, Summary
from classroomkd.report.vocabulary import Vocabulary

__all__ = ["ReportContext"]


@dataclass
class ReportContext:
    """A run as its page and picture need it. ``specs`` collects Vega-Lite specs by element id."""

    summary: Summary
    ink: Ink
    rows: list[Row]
    logs: list[ArmLog]
    main: Row | None
    arm_colours: list[str]
    mentor_colours: list[str]
    decimals: int
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, summary: Summary, ink: Ink) -> ReportContext:
        """Read the run's logs and choose what the headline is about and every colour."""
        rows = result_rows(summary)
        main = main_arm(rows, summary)
        labels = [row["arm"] for row in rows]
        index = labels.index(main["arm"]) if main else None
        hues = [ink.hues[k % len(ink.hues)] for k in range(len(summary.mentors))]
        colours = arm_colours([row["method"] for row in rows], ink, index)
        decimals = words.decimals_for(summary.data.test, summary.say.measure)
        return cls(summary, ink, rows, read_run(summary), main, colours, hues, decimals)

    @property
    def say(self) -> Vocabulary:
        """What scores, units and samples of this run are called."""
        return self.summary.say

    @property
    def alone(self) -> ArmInfo | None:
        """The student alone, if the run has it."""
        return find_baseline(self.summary, "none")

    def colour(self, label: str) -> str:
        """The colour of an arm."""
        return self.arm_colours[[row["arm"] for row in self.rows].index(label)]

    def hues(self, names: Sequence[str]) -> list[str]:
        """One colour a mentor, the same in every chart; names the summary does not know come after the others."""
        known = {mentor.name: k for k, mentor in enumerate(self.summary.mentors)}
        spare = iter(range(len(known), len(known) + len(names)))
        return [self.ink.hues[known.get(name, k) % len(self.ink.hues)] for name, k in zip(names, spare, strict=False)]

    def recorded(self) -> list[tuple[ArmLog, Teaching | None]]:
        """Arms that recorded their mentors' weights, the headline's first."""
        recorded = [(log, log.teaching) for log in self.logs if log.teaching or log.activity]
        return sorted(recorded, key=lambda pair: pair[0].label != (self.main or {}).get("arm"))

    def figure(
        self,
        title: str,
        subtitle: str,
        chart: Any,
        alt_text: str,
        legend: Html | None = None,
        after: Html | None = None,
    ) -> Html:
        """A chart with its caption; ``alt_text`` says in text what the chart shows, for pages without script."""
        name = f"chart-{len(self.specs)}"
        self.specs[name] = chart.to_dict()
        self.specs[name].pop("config", None)  # one config serves all charts
        return el(
            "figure",
            el("figcaption", title, el("span", subtitle) if subtitle else None),
            legend,
            el("div", class_="chart", id=name),
            el("noscript", el("p", alt_text)),
            after,
        )

    def legend(self, names: Sequence[str], colours: Sequence[str], *, dashes: bool = False) -> Html:
        """Buttons that name the series; with scripts on, one lights up its series in the charts beside it."""
        items = []
        for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
            dash = svg_dash(index, self.ink) if dashes else None
            key = stroke(f"stroke:{colour};stroke-width:{4 if dash else 5}", dash)
            button = el("button", key, name, type="button", disabled=True, aria_pressed="false", data_name=name)
            items.append(el("li", button))
        return el("ul", *items, class_="legend", aria_label="Legend")

    def named(self, colour: str, name: str, tag: str = "") -> Html:
        """The heading of a table row: a small square of the series' colour, the name, and a tag if there is one."""
        return swatch(colour, name, el("span", tag, class_="tag") if tag else None)
