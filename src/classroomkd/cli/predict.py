"""``classroomkd predict``: a folder of images to classes, as CSV or JSON lines."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from classroomkd.cli.evaluate import StudentPath, Which
from classroomkd.errors import UserError

__all__ = ["predict"]


def predict(
    student: StudentPath,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images (searched through).")],
    out: Annotated[Path | None, typer.Option(help="FILE.csv or FILE.jsonl; standard output by default.")] = None,
    top: Annotated[int, typer.Option(help="How many classes an image.", min=1)] = 1,
    which: Which = "last",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Say which class every image shows. Images that cannot be read are named on stderr and left out."""
    from classroomkd._files import atomic_write
    from classroomkd.engine.runtime import pick_device
    from classroomkd.export.student import find_student, load_student

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out {out}: name it .csv or .jsonl")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    files = _files(images)
    where = pick_device(device)
    taught = load_student(find_student(student, which), trust_code=trust_code)
    top = min(top, len(taught.classes))
    lines = as_json or (out is not None and out.suffix == ".jsonl")
    skipped: list[str] = []
    rows = _begun(_rows(taught, files, top, where, batch_size, skipped), skipped, images)
    if out is None:
        _write(sys.stdout, rows, lines, top)
    else:
        with atomic_write(out, "w") as file:
            _write(file, rows, lines, top)
        print(f"{len(files) - len(skipped)} images -> {out}", file=sys.stderr)
    for name in skipped:
        print(f"skipped: {name}", file=sys.stderr)


def _begun(rows: Iterator[dict[str, Any]], skipped: list[str], images: Path) -> Iterator[dict[str, Any]]:
    """The rows, once there is a first one: nothing is written for a folder in which nothing can be read."""
    first = next(rows, None)
    if first is None:
        raise UserError(f"no image in {images} could be read: {'; '.join(skipped[:3])}")
    return chain([first], rows)


def _files(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    if not images.exists():
        raise UserError(f"{images} does not exist; give an image or a folder of images")
    from classroomkd.data.decode import ENDINGS

    found = sorted(p for p in images.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not found:
        raise UserError(f"{images} holds no image ({', '.join(ENDINGS)})")
    return found


def _rows(
    taught: Any, files: list[Path], top: int, where: Any, batch_size: int, skipped: list[str]
) -> Iterator[dict[str, Any]]:
    import torch

    from classroomkd.classroom import prediction_of
    from classroomkd.engine import Inputs

    module, inputs = taught.module.to(where), Inputs(taught.mean, taught.std, where)
    for start in range(0, len(files), batch_size):
        read = []
        for file in files[start : start + batch_size]:
            try:
                read.append((file, _pixels(file, taught)))
            except UserError as error:
                skipped.append(str(error))
        if not read:
            continue
        with torch.no_grad():
            logits = prediction_of(module(inputs(torch.stack([p for _, p in read]))))
        chances, classes = logits.float().softmax(-1).topk(top)
        for (file, _), p, k in zip(read, chances.tolist(), classes.tolist(), strict=True):
            yield {
                "file": str(file),
                "classes": [taught.classes[i] for i in k],
                "probabilities": [round(x, 6) for x in p],
            }


def _pixels(file: Path, taught: Any) -> Any:
    """One image with the geometry the student was trained with, uint8 (C, H, W)."""
    import torch

    from classroomkd.data.decode import DecodeError, decode

    try:
        pixels = decode(file, taught.side)
    except DecodeError as error:
        raise UserError(f"{file}: {error}") from error
    if pixels.shape != taught.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (pixels.shape, taught.shape))
        raise UserError(f"{file}: gives {got} pixels, the student takes {wanted}")
    return torch.from_numpy(pixels)


def _write(file: IO[str], rows: Iterator[dict[str, Any]], lines: bool, top: int) -> None:
    if lines:
        for row in rows:
            file.write(json.dumps(row) + "\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{kind}_{i + 1}" if top > 1 else kind for i in range(top) for kind in ("class", "probability")]
    writer.writerow(["file", *names])
    for row in rows:
        pairs = zip(row["classes"], row["probabilities"], strict=True)
        writer.writerow([row["file"], *(x for pair in pairs for x in pair)])
