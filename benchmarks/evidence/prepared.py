"""Pictures that a study needs as a folder: drawn from the real data, beside the students, never committed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classroomkd import data
from classroomkd.errors import UserError

__all__ = ["prepare"]

TAUGHT, EVERY, EACH = 20, 100, 56


def prepare(names: Iterable[str], source: Path, folder: Path) -> Path:
    """Make what is not there yet; returns the folder that holds it all.

    Args:
        names: of what is wanted.
        source: the folder of the real data.
        folder: where it lies, a folder a name.

    Raises:
        UserError: nothing is known by that name.
    """
    for name in names:
        if name not in _MADE:
            raise UserError(f"nothing is prepared by the name '{name}'; there is {', '.join(_MADE)}")
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as unfinished:
                half = Path(unfinished, name)
                half.mkdir()
                _MADE[name](source, half)
                os.replace(half, folder / name)
    return folder


def _other_classes(source: Path, folder: Path) -> None:
    """The first 56 training images of each of CIFAR-100's 80 classes that the studies do not teach."""
    images = data.load({"source": f"cifar100:{source}"})
    taught = {number * EVERY // TAUGHT for number in range(TAUGHT)}
    part, known = images.train, images.train.target.numpy()
    for number in sorted(set(range(EVERY)) - taught):
        for place in np.flatnonzero(known == number)[:EACH]:
            pixels = part.batch(torch.tensor([place]))[0][0].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{number:02d}_{place:05d}.png")


_MADE: dict[str, Callable[[Path, Path], None]] = {"other-classes": _other_classes}
