"""``classroomkd export``: the student alone, for shipping."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from classroomkd.cli.options import StudentPath, Which, note_unlisted, tell
from classroomkd.errors import UserError

__all__ = ["export"]

DECODE = ("inside", "outside")


def export(
    student: StudentPath,
    target: Annotated[
        Path | None, typer.Argument(help="Where to: FILE.safetensors or FILE.onnx.", show_default=False)
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="The same, as an option.", show_default=False)] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help="Pose as ONNX: inside (the default) gives joints (x, y, score), outside the network's answer.",
            show_default=False,
        ),
    ] = None,
    which: Which = "last",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run (for ONNX).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the student alone: safetensors with a model card beside it, or ONNX."""
    if (target is None) == (to is None):
        raise UserError("say once where to: classroomkd export STUDENT FILE.safetensors, or --to FILE.onnx")
    place = target or to
    assert place is not None
    if decode is not None and decode not in DECODE:
        raise UserError(f"--decode {decode}: choose one of {', '.join(DECODE)}")
    from classroomkd.export.graph import export_onnx
    from classroomkd.export.student import find_student, load_student
    from classroomkd.export.write import export_student, written_here

    if place.exists() and not force:
        raise UserError(f"{place} exists already; add --force to replace it")
    source = find_student(student, which, partial(tell, "note"))
    note_unlisted(source)
    inside = cast(Literal["inside", "outside"] | None, decode)
    result: dict[str, Any] = {"student": str(source), "file": str(place)}
    if place.suffix == ".onnx":
        graph = export_onnx(load_student(source, trust_code=trust_code), place, decode=inside)
        result |= {"output": graph.output, "opset": graph.opset, "difference": graph.difference}
        compared = (
            "not compared with torch: onnxruntime is not installed"
            if graph.difference is None
            else f"onnxruntime's answers are torch's (largest difference {graph.difference:.1e})"
        )
        note = f": pixels -> {graph.output}, any batch, opset {graph.opset}; {compared}"
    else:
        export_student(source, place, decode=inside, force=True)  # whether it may be replaced was asked before
        card = place.with_suffix(".md")
        result["card"] = str(card) if written_here(card) else None
        note = "" if result["card"] else " (no card: the network is code of your own)"
    result["note"] = f"{source} -> {place}{note}"
    print(json.dumps(result) if as_json else result["note"])
