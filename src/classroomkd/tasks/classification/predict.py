"""``classroomkd predict`` of a student of classes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from classroomkd._files import atomic_write
from classroomkd._terminal import data_stream
from classroomkd.classroom import prediction_of
from classroomkd.data.decode import DecodeError, decode
from classroomkd.errors import UserError
from classroomkd.export import Student
from classroomkd.tasks.files import PredictRequest
from classroomkd.train.inputs import Inputs

__all__ = ["predict_classes"]


def predict_classes(asked: PredictRequest) -> list[str]:
    """Write the classes of every image; what could not be read, and why.

    Raises:
        UserError: nothing could be read.
    """
    out, lines = asked.out, asked.lines
    if out is not None and out.suffix == ".json":
        raise UserError(f"--out {out}: classes are written as .csv or .jsonl")
    top = min(asked.top or 1, len(asked.student.classes))
    skipped: list[str] = []
    rows = _begun(_rows(asked, top, skipped), skipped, asked.images)
    if out is None:
        _write(data_stream(), rows, lines, top)
    else:
        with atomic_write(out, "w") as file:
            _write(file, rows, lines, top)
        print(f"{len(asked.files) - len(skipped)} images -> {out}", file=sys.stderr)
    return skipped


def _begun(rows: Iterator[dict[str, Any]], skipped: list[str], images: Path) -> Iterator[dict[str, Any]]:
    """The rows, once there is a first one: nothing is written for a folder in which nothing can be read."""
    first = next(rows, None)
    if first is None:
        raise UserError(f"no image in {images} could be read: {'; '.join(skipped[:3])}")
    return chain([first], rows)


def _rows(asked: PredictRequest, top: int, skipped: list[str]) -> Iterator[dict[str, Any]]:
    taught, files, size = asked.student, asked.files, asked.batch_size
    module, inputs = taught.module.to(asked.device), Inputs(taught.mean, taught.std, asked.device)
    for start in range(0, len(files), size):
        read = []
        for file in files[start : start + size]:
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


def _pixels(file: Path, taught: Student) -> Tensor:
    """One image with the geometry the student was trained with, uint8 (C, H, W)."""
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
