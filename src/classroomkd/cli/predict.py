"""``classroomkd predict``: what a student says about a folder of images, as CSV, JSON lines or COCO's results."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from classroomkd.cli.options import Device, FlipTest, Network, StudentPath, TrustModels, Which, note_unlisted, tell
from classroomkd.errors import UserError

__all__ = ["predict"]


def predict(
    student: StudentPath,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images (searched through).")],
    out: Annotated[
        Path | None,
        typer.Option(help="FILE.csv or FILE.jsonl, for pose FILE.json (COCO's results), too; standard output else."),
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="How many classes an image; 1 by default.", min=1, show_default=False)
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Pose: COCO annotations, or [{image_id or file_name, bbox, score}]; without, an image is one person.",
            show_default=False,
        ),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Pose: a folder for the images with skeletons drawn.", show_default=False)
    ] = None,
    flip_test: FlipTest = None,
    which: Which = "last",
    network: Network = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    trust_code: TrustModels = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Say which class every image shows, or where the joints of every person are.

    Images that cannot be read are named on stderr and left out.
    """
    from classroomkd.export.student import find_student, load_student
    from classroomkd.tasks.files import PredictRequest, files_of, refuse_options
    from classroomkd.train.runtime import pick_device

    if out is not None and out.suffix not in (".csv", ".json", ".jsonl"):
        raise UserError(f"--out {out}: name it .csv or .jsonl (pose: or .json)")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    files = _files(images)
    where = pick_device(device)
    path = find_student(student, which, partial(tell, "note"), network)
    note_unlisted(path)
    taught = load_student(path, trust_code=trust_code)
    lines = as_json or (out is not None and out.suffix == ".jsonl")
    task_files = files_of(taught.task)
    options = {"--top": top, "--boxes": boxes, "--draw": draw, "--flip-test": flip_test}
    refuse_options(taught, options, task_files.predict_options)
    request = PredictRequest(taught, images, files, out, lines, where, batch_size, top, boxes, draw, flip_test, path)
    for name in task_files.predict(request):
        print(f"skipped: {name}", file=sys.stderr)


def _files(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    if not images.exists():
        raise UserError(f"{images} does not exist; give an image or a folder of images")
    from classroomkd.data.decode import ENDINGS
    from classroomkd.data.sources.walking import look_through

    found = look_through(images)
    for place, why in found.lost.items():
        print(f"skipped: {place}: {why}", file=sys.stderr)
    if not found.images:
        raise UserError(f"{images} holds no image ({', '.join(ENDINGS)})")
    return found.images
