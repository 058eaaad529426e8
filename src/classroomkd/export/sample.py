"""Pictures that an exported file is tried on: of the run's own data where they are known, else drawn ones."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from classroomkd import data
from classroomkd.data.decode import ENDINGS, DecodeError, decoding
from classroomkd.errors import UserError
from classroomkd.export.find import own_run
from classroomkd.export.pictures import fitted
from classroomkd.export.student import own_recipe

if TYPE_CHECKING:
    from classroomkd.export.student import Student

__all__ = ["Sample", "pictures_for"]

COUNT = 8
_LISTED = 4096  # files of a folder that are looked at
_PLAIN = ("L", "RGB", "P", "1", "CMYK")  # whose pixels ``convert("RGB")`` gives as ``predict`` takes them


@dataclass(frozen=True)
class Sample:
    """Picture files, and what they are, as the end of a sentence."""

    files: tuple[Path, ...]
    said: str


def pictures_for(student: Student, source: Path, folder: Path, images: Path | None = None) -> Sample:
    """Up to eight pictures for a student, and three drawn ones of other shapes and of its own.

    Args:
        student: who is to see them.
        source: its file, which may lie in a run's folder.
        folder: where pictures may be written.
        images: a picture or a folder of them, to take instead of the run's.

    Raises:
        UserError: ``images`` has none that can be read.
    """
    drawn = _drawn(student, folder)
    if images is not None:
        found = _readable(student, [images] if images.is_file() else _below(images))
        if not found:
            raise UserError(f"--images {images}: there is no picture there that the student can be asked about")
        return Sample((*found, *drawn[:3]), f"{len(found)} pictures of {images} and 3 drawn ones")
    recipe = own_recipe(source)
    section = (recipe or {}).get("data")
    if isinstance(section, dict):
        if found := _readable(student, _of_source(section)):
            return Sample((*found, *drawn[:3]), f"{len(found)} pictures of the run's data and 3 drawn ones")
        if found := _readable(student, _of_test_part(student, section, folder)):
            return Sample((*found, *drawn[:3]), f"{len(found)} pictures of the run's test part and 3 drawn ones")
    why = "the run's data cannot be read" if own_run(source) else "it lies in no run"
    return Sample(drawn, f"{len(drawn)} drawn pictures ({why}; --images names some)")


def _of_source(section: dict[str, Any]) -> Iterator[Path]:
    """Picture files of a recipe's ``data:``, where it names folders."""
    for key in ("test", "val", "source", "train"):
        text = section.get(key)
        argument = str(text).partition(":")[2] if isinstance(text, str) else ""
        for place in filter(None, reversed(argument.split("@"))):
            if Path(place).is_dir():
                yield from _below(Path(place))


def _below(folder: Path) -> list[Path]:
    """Pictures below a folder, from all over the first few thousand files, those in a folder ``test`` before others."""
    found = itertools.islice(
        (Path(root) / name for root, _, names in os.walk(folder) for name in names
         if Path(name).suffix.lower() in ENDINGS and not name.startswith(".")), _LISTED,
    )  # fmt: skip
    files = sorted(found)
    return [files[len(files) * k // COUNT] for k in range(COUNT)] if len(files) > COUNT else files


def _of_test_part(student: Student, section: dict[str, Any], folder: Path) -> list[Path]:
    """Pictures of the test part, written as files; none where it cannot be loaded without running code."""
    try:
        test = data.load({k: v for k, v in section.items() if v is not None}, task=student.task).test
        pixels = test.batch(torch.arange(min(COUNT, len(test))))[0].cpu().numpy()
    except UserError:
        return []
    files = [folder / f"test-{row}.png" for row in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file)
    return files


def _readable(student: Student, files: Iterator[Path] | list[Path]) -> list[Path]:
    """Those that the student can be asked about and any program reads alike."""
    found: list[Path] = []
    for file in files:
        try:
            with decoding(), Image.open(file) as image:
                plain = image.mode in _PLAIN and "transparency" not in image.info
            if plain and student.pose is None:
                fitted(student, file)
        except (DecodeError, OSError):
            continue
        found += [file] * plain
        if len(found) == COUNT:
            break
    return found


def _drawn(student: Student, folder: Path) -> tuple[Path, ...]:
    """Smooth blots in several shapes; where the student takes one shape, in that."""
    _, height, width = student.shape
    shapes = [(67, 98), (24, 20), (height, width), (3 * height + 1, 2 * width), (height, 2 * width + 1)]
    if student.pose is None and student.side is None:
        shapes = [(height, width)] * len(shapes)
    rng, files = np.random.default_rng(0), []
    for number, (tall, wide) in enumerate(shapes):
        blots = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        files.append(folder / f"drawn-{number}.{'jpg' if number % 2 else 'png'}")
        blots.resize((wide, tall), Image.Resampling.BICUBIC).save(files[-1])
    return tuple(files)
