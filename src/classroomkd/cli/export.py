"""``classroomkd export``: the student alone, for shipping."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from classroomkd.cli.options import Network, StudentPath, Which, note_unlisted, tell
from classroomkd.errors import UserError

__all__ = ["export"]

DECODE = ("inside", "outside")


def export(
    student: StudentPath,
    target: Annotated[
        Path | None, typer.Argument(help="Where to: FILE.safetensors, FILE.onnx or FILE.pt2.", show_default=False)
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="The same, as an option.", show_default=False)] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help="Pose as a graph: inside (the default) gives joints (x, y, score), outside the network's answer.",
            show_default=False,
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="A graph that takes normalised floats, not uint8 pixels.")] = False,
    with_resize: Annotated[
        bool, typer.Option("--with-resize", help="ONNX that takes pictures of any size (not by Pillow's resampling).")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Pictures to try the file on; the run's own data by default.", show_default=False),
    ] = None,
    which: Which = "last",
    network: Network = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run (for graphs).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the student alone, a model card beside it: safetensors, ONNX, or a program of torch.export.

    The lines of the card are tried on pictures first: they must say what predict says."""
    if (target is None) == (to is None):
        raise UserError("say once where to: classroomkd export STUDENT FILE.safetensors, or --to FILE.onnx")
    place = target or to
    assert place is not None
    if decode is not None and decode not in DECODE:
        raise UserError(f"--decode {decode}: choose one of {', '.join(DECODE)}")
    if images is not None and not images.exists():
        raise UserError(f"--images {images} does not exist; give a picture or a folder of pictures")
    from classroomkd.export.lines import Form
    from classroomkd.export.student import find_student
    from classroomkd.export.write import ship

    if place.exists() and not force:
        raise UserError(f"{place} exists already; add --force to replace it")
    source = find_student(student, which, partial(tell, "note"), network)
    note_unlisted(source)
    form = Form(place, decode, raw, with_resize)
    # Whether it may be replaced was asked before.
    found = ship(source, form, trust_code=trust_code, images=images, force=True)
    made = found.made
    result: dict[str, Any] = {
        "student": str(source), "file": str(place), "card": None if found.card is None else str(found.card),
        "difference": found.difference, "tried": found.tried,
    }  # fmt: skip
    if made.outputs:
        result |= {"input": made.input, "output": made.outputs[0], "outputs": list(made.outputs), "opset": made.opset}
    what = f": {made.input} -> {', '.join(made.outputs)}, any batch" if made.outputs else ""
    opset = f", opset {made.opset}" if made.opset is not None else ""
    joint = "; " if what else ": "
    if found.card is None:
        tried = " (no card: the network is code of your own)"
    elif found.difference is None:
        tried = f"{joint}its card was not tried: {found.tried}"
    else:
        largest = f"largest difference {found.difference:.1e}"
        tried = f"{joint}the lines of its card give what predict gives: {found.tried} ({largest})"
    result["note"] = f"{source} -> {place}{what}{opset}{tried}"
    print(json.dumps(result) if as_json else result["note"])
