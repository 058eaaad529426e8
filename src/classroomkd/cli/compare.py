"""``classroomkd compare``: several runs in one table."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from classroomkd._terminal import Console
from classroomkd.cli.options import PrintJson, note_unlisted

__all__ = ["compare"]


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders, parents of run folders, or patterns.", metavar="RUNS")
    ],
    as_json: PrintJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print as a Markdown table.")] = False,
) -> None:
    """Compare runs: mean ± sd over seeds, paired differences with 95 % intervals, cost."""
    from classroomkd import report as report_
    from classroomkd.report.rows import kept_apart

    summaries = report_.collect(runs)
    for summary in summaries:
        note_unlisted(summary.root / "summary.json")
    rows = report_.result_rows(summaries)
    if as_json:
        print(json.dumps(rows, indent=1))
    elif markdown:
        print(report_.markdown(rows) + "".join(f"{line}  \n" for line in kept_apart(rows)))
    else:
        console = Console()
        console.print(report_.rich_results(rows))
        if (more := report_.rich_figures(rows, title="Further figures")) is not None:
            console.print(more)
        for line in kept_apart(rows):
            console.print(line, style="dim", markup=False, highlight=False)
