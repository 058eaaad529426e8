"""``classroomkd export``: the student alone, for shipping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from classroomkd.cli.evaluate import StudentPath, Which
from classroomkd.errors import UserError

__all__ = ["export"]


def export(
    student: StudentPath,
    target: Annotated[Path, typer.Argument(help="Where to: FILE.safetensors.")],
    which: Which = "last",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the student alone, with a model card beside it."""
    from classroomkd.export import export_student
    from classroomkd.export.student import find_student

    if target.exists() and not force:
        raise UserError(f"{target} exists already; add --force to replace it")
    source = find_student(student, which)
    made = export_student(source, target)
    card = made.with_suffix(".md")
    said = {"student": str(source), "file": str(made), "card": str(card) if card.exists() else None}
    without = "" if said["card"] else " (no card: the network is code of your own)"
    print(json.dumps(said) if as_json else f"{source} -> {made}{without}")
