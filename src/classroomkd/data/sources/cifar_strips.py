"""CIFAR-100 as zips of lossless WebP strips: one strip per class, 32 pixels wide, its images stacked downwards.

``cifar100_train_*.zip`` and ``cifar100_test.zip`` hold ``train/19_cattle.webp`` and the like: the two digits are the
official fine label. Images are in class order, so ids differ from those of the official archives.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classroomkd._limits import MOST_PICTURE, check_pixels, check_unpacked, read_exactly
from classroomkd.data.keypoints.archive import UNREADABLE
from classroomkd.errors import UserError

__all__ = ["present", "read"]

_CLASSES = 100
_MEMBER = re.compile(r"(?:.*/)?(\d{2})_([^/]+)\.webp")

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def present(folder: Path) -> bool:
    """Whether the folder holds this layout."""
    return (folder / "cifar100_test.zip").is_file() or any(folder.glob("cifar100_train*.zip"))


def read(folder: Path) -> tuple[tuple[str, ...], dict[str, Part]]:
    """Class names and, per part, images (N, 3, 32, 32) uint8 with classes (N,).

    Raises:
        UserError: when a zip is missing, damaged or lacks a class.
    """
    files = {"train": sorted(folder.glob("cifar100_train*.zip")), "test": [folder / "cifar100_test.zip"]}
    if not files["train"] or not files["test"][0].is_file():
        raise UserError(
            f"data: cifar100:{folder} has only one of cifar100_train_*.zip and cifar100_test.zip; both are needed"
        )
    names: dict[int, str] = {}
    parts: dict[str, Part] = {}
    for part, paths in files.items():
        strips: dict[int, NDArray[np.uint8]] = {}
        for path in paths:
            for label, name, strip in _strips(path):
                names[label] = name
                strips[label] = strip
        absent = [str(label) for label in range(_CLASSES) if label not in strips]
        if absent:
            raise UserError(
                f"data: cifar100:{folder}: the {part} zips lack {len(absent)} of 100 classes (the first is"
                f" {absent[0]}); is a zip missing?"
            )
        images = np.concatenate([strips[label] for label in range(_CLASSES)])
        counts = [len(strips[label]) for label in range(_CLASSES)]
        parts[part] = (images, np.repeat(np.arange(_CLASSES), counts).astype(np.int64))
    return tuple(names[label] for label in range(_CLASSES)), parts


def _strips(path: Path) -> list[tuple[int, str, NDArray[np.uint8]]]:
    strips = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                match = _MEMBER.fullmatch(member.filename)
                if match:
                    check_unpacked(member.file_size, member.compress_size, MOST_PICTURE)
                    with archive.open(member) as file:
                        picture = Image.open(io.BytesIO(read_exactly(file, member.file_size)))
                    check_pixels(*picture.size)
                    strip = np.asarray(picture.convert("RGB"))
                    images = strip.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
                    strips.append((int(match[1]), match[2], np.ascontiguousarray(images)))
    except UNREADABLE as error:
        raise UserError(f"data: {path} is damaged ({error}); fetch it again") from error
    return strips
