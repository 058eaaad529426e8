"""``classroomkd compare``: several runs in one table, and ``classroomkd report``: a run's page, written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["compare", "report"]


def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders, parents of run folders, or patterns.", metavar="RUNS")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print as a Markdown table.")] = False,
) -> None:
    """Compare runs: mean ± sd over seeds, paired differences with 95 % intervals, cost."""
    from classroomkd import report as report_

    rows = report_.result_rows(report_.collect(runs))
    if as_json:
        print(json.dumps(rows, indent=1))
    elif markdown:
        print(report_.markdown(rows))
    else:
        Console().print(report_.rich_results(rows))


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw a PNG or SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write a run's report.html again."""
    from classroomkd import report as report_

    made = {"report": str(report_.write_report(run))}
    if picture is not None:
        made["picture"] = str(report_.write_picture(run, picture))
    print(json.dumps(made) if as_json else "\n".join(made.values()))
