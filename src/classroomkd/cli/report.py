"""``classroomkd report``: a run's page, written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from classroomkd.cli.options import note_unlisted

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw a PNG or SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write a run's report.html again."""
    from classroomkd import report as report_

    page = report_.write_report(run)
    note_unlisted(page.with_name("summary.json"))
    paths = {"report": str(page)}
    if picture is not None:
        paths["picture"] = str(report_.write_picture(run, picture))
    print(json.dumps(paths) if as_json else "\n".join(paths.values()))
