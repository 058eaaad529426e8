"""What a run found, for people: statistics over seeds, result tables, the page and the picture.

Reads run folders only (``summary.json``, ``metrics.jsonl``, ``teaching.json``); imports neither torch nor the engine,
and loads Altair when a chart is drawn, not before.
"""

from __future__ import annotations

from pathlib import Path

from classroomkd.report.collecting import collect
from classroomkd.report.rows import mentor_rows, result_rows
from classroomkd.report.statistics import Difference, Spread, paired, spread, t_quantile
from classroomkd.report.summary import Summary, load_summary, read_metrics
from classroomkd.report.table import markdown, rich_figures, rich_mentors, rich_results

__all__ = [
    "Difference",
    "Spread",
    "Summary",
    "collect",
    "load_summary",
    "markdown",
    "mentor_rows",
    "paired",
    "read_metrics",
    "result_rows",
    "rich_figures",
    "rich_mentors",
    "rich_results",
    "spread",
    "t_quantile",
    "write_picture",
    "write_report",
]


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder and return its path; see :func:`classroomkd.report.page.write_report`."""
    from classroomkd.report.page import write_report as write

    return write(run_folder)


def write_picture(run_folder: str | Path, path: str | Path, *, theme: str = "light") -> Path:
    """Draw a run as one PNG or SVG; see :func:`classroomkd.report.picture.write_picture`."""
    from classroomkd.report.picture import write_picture as write

    return write(run_folder, path, theme=theme)
