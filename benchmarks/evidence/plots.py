"""Plots of a study as SVG: intervals of every arm, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import altair as alt
import vl_convert

from benchmarks.evidence.plan import rows
from benchmarks.evidence.protocol import Table
from benchmarks.evidence.results import Store
from benchmarks.evidence.study import Panel, Study

__all__ = ["curves", "forest"]

WIDTH, STEP = 420, 18
COLOURS = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d"]


def forest(panels: Mapping[str, Table], against: str = "alone") -> str | None:
    """Every arm's difference to the student alone with its interval, panel by panel; None without any."""
    values = [
        {"panel": title, "arm": line.name, "mean": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
        for title, table in panels.items()
        for line in table.lines
        if (compared := getattr(line, against)) is not None
        and (found := compared.difference).mean is not None
        and found.low is not None
        and found.high is not None
    ]
    if not values:
        return None
    order = [line.name for table in panels.values() for line in table.lines]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("arm:N", sort=list(dict.fromkeys(order)), title=None, axis=alt.Axis(labelLimit=260))
    )
    reach = alt.X("low:Q", title="points above the student alone, 95 % interval")
    bars = base.mark_rule(color=COLOURS[0]).encode(x=reach, x2="high:Q")
    dots = base.mark_point(filled=True, color=COLOURS[0], size=36, opacity=1).encode(x="mean:Q")
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(color="#999").encode(x="x:Q")
    facets = [
        (zero + bars.transform_filter(alt.datum.panel == title) + dots.transform_filter(alt.datum.panel == title))
        .properties(width=WIDTH, height=alt.Step(STEP), title=title)
        for title in panels
        if any(value["panel"] == title for value in values)
    ]  # fmt: skip
    return _svg(alt.vconcat(*facets).resolve_scale(x="shared"))


def curves(name: str, study: Study, panel: Panel, store: Store, most: int = 6) -> str | None:
    """Accuracy on the validation part over the epochs, mean over the seeds, of the first arms; None without any."""
    values: list[dict[str, Any]] = []
    for row in rows(name, study, panel, store)[:most]:
        found = [entry["val_curve"] for seed, entry in store.students(row.cell).items() if seed in study.seeds]
        for place, (epoch, _) in enumerate(found[0] if found else []):
            scores = [100 * curve[place][1] for curve in found if len(curve) > place]
            values.append({"arm": row.arm.name, "epoch": epoch, "accuracy": fmean(scores)})
    if not values:
        return None
    names = list(dict.fromkeys(value["arm"] for value in values))
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", title="epoch"),
            y=alt.Y("accuracy:Q", title="validation accuracy, %", scale=alt.Scale(zero=False)),
            color=alt.Color("arm:N", sort=names, scale=alt.Scale(domain=names, range=COLOURS), title=None),
        )
        .properties(width=WIDTH, height=260, title=panel.title)
    )
    return _svg(chart)


def _svg(chart: Any) -> str:
    drawn = chart.configure(background="white").configure_axis(labelFontSize=11, titleFontSize=11)
    return str(vl_convert.vegalite_to_svg(drawn.to_dict()))
