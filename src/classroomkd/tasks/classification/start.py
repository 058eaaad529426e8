"""A first recipe for a folder of images by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from classroomkd.data.decode import DecodeError, oriented_size
from classroomkd.data.file_pixels import FilePixels
from classroomkd.data.sources.base import Raw, Request, Source, first_of
from classroomkd.data.sources.table import open_source
from classroomkd.data.spec import DataSettings
from classroomkd.data.split import counts_for_fraction
from classroomkd.errors import UserError
from classroomkd.tasks.start import Line, Start, largest_below, training

__all__ = ["start"]

SOURCE = "imagefolder"
SIDES = (32, 48, 64)  # larger ones are for whoever has the time: cost goes with the square
_SIDES = ", ".join(map(str, SIDES))
MOST_LOOKED_AT = 1_000  # heads of files
UPDATES = 1_500


def start(place: Path) -> Start:
    """What is proposed for the images in ``place``.

    Raises:
        UserError: there are no folders of images by class, and what reading them raises.
    """
    # Nothing is decoded where nothing may stay in memory: heads and names tell all that is needed.
    request = Request(size=32, options={"memory_gib": 0}, unreadable="skip", task="classification")
    source: Source = open_source(f"{SOURCE}:{place}", request)
    if len(source.classes) < 2:
        raise UserError(
            f"data: {SOURCE}:{place}: '{source.classes[0]}' is the only folder with images in it: one class is "
            "nothing to learn. Give the folder that holds one folder per class"
        )
    sides = _shorter_sides(source)
    half = int(np.median(sides))
    size = largest_below(half, SIDES)
    counts = {
        part: np.bincount(raw.target.numpy(), minlength=len(source.classes)) for part, raw in source.parts.items()
    }
    total = np.sum(list(counts.values()), axis=0)
    return Start(
        title=f"{len(source.classes)} classes of images",
        found=(
            _classes(source, total),
            f"Shorter sides from {min(sides)} to {max(sides)} pixels; half of the images have {half} or more.",
            *_nested(place, source),
            *(f"{note}." for note in source.notes),
        ),
        source=SOURCE,
        data=(
            Line("size", size, f"side in pixels: the largest of {_SIDES} that half of the images have"),
            Line("resize", "crop", "shorter side to that size, the middle kept; letterbox: all of it; stretch, pad"),
            *_fractions(source.parts),
            Line("unreadable", "skip", "leave out files that cannot be decoded, and name them; refuse: stop"),
        ),
        student=Line("student", "resnet8", "what you want to ship: `classroomkd list models`; or timm:NAME"),
        mentors=("resnet20", "wrn_16_2", "vgg8"),
        mentor="{name: NAME, model: resnet56, weights: FILE, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
        train=training(_left(counts), UPDATES, "sgd", 0.05, at=64),
    )  # fmt: skip


def _nested(place: Path, source: Source) -> list[str]:
    """A sentence for every class that looks like a folder of classes."""
    deep = {name: inside for name in source.classes if len(inside := _folders(place / name)) > 1}
    return [
        f"'{name}' holds folders of its own ({first_of(inside, 4)}), which are taken for one class: if these are the "
        f"classes, give {place / name}."
        for name, inside in list(deep.items())[:3]
    ]


def _folders(place: Path) -> list[str]:
    """The folders in a folder, by name; none where there is no such folder."""
    if not place.is_dir():
        return []
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _shorter_sides(source: Source) -> list[int]:
    """Of the images, or of some spread evenly over them, as far as their heads can be read."""
    files = [raw.pixels.root / path for raw in source.parts.values() if isinstance(raw.pixels, FilePixels)
             for path in raw.pixels.paths]  # fmt: skip
    sides = []
    for file in files[:: max(1, -(-len(files) // MOST_LOOKED_AT))]:
        try:
            sides.append(min(oriented_size(file)))
        except DecodeError:  # the source has named it, or the run will
            continue
    return sides or [SIDES[0]]


def _classes(source: Source, total: np.ndarray) -> str:
    counted = [f"{name} {count:,}" for name, count in zip(source.classes, total.tolist(), strict=True)]
    return f"{int(total.sum()):,} images: {first_of(counted, 12)}."


def _fractions(parts: Mapping[str, Raw]) -> list[Line]:
    """The shares that are split off, where a part has no folder of its own."""
    whys = {
        "val": ("val_fraction", "of the training images: chooses the best epoch, and is never trained on"),
        "test": ("test_fraction", "for the final score"),
    }
    return [Line(key, getattr(DataSettings, key), why) for part, (key, why) in whys.items() if part not in parts]


def _left(counts: Mapping[str, np.ndarray]) -> int:
    """The images that are left for the training."""
    train = counts.get("all", counts.get("train", np.zeros(1, np.int64)))
    if "test" not in counts:
        train = train - counts_for_fraction(train, DataSettings.test_fraction)
    if "val" not in counts:
        train = train - counts_for_fraction(train, DataSettings.val_fraction)
    return int(train.sum())
