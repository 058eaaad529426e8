"""A first recipe for people whose joints are annotated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classroomkd.data.keypoints.annotation_file import PersonSource
from classroomkd.data.keypoints.selections import selections_of
from classroomkd.data.sources.base import Request, first_of
from classroomkd.data.sources.table import open_source
from classroomkd.data.spec import DataSettings
from classroomkd.errors import UserError
from classroomkd.tasks.start import Line, Start, largest_below, training

__all__ = ["start"]

SOURCES = ("coco-keypoints", "mpii")
HEIGHTS = (64, 128)  # larger ones are for whoever has the time: cost goes with the square
WIDE = 0.25  # from this share of people who are wider than tall on, inputs are squares
UPDATES = 3_000


def start(place: Path) -> Start:
    """What is proposed for the people in ``place``: a folder or zip in COCO's or MPII's format, or FILE.json@IMAGES.

    Raises:
        UserError: it holds no annotated people, and what reading them raises.
    """
    name, source = _open(place)
    notes = list(source.notes)
    selections = selections_of(source, notes, refuse=False)
    counts = {part: len(selection) for part, selection in selections.items()}
    if not sum(counts.values()):
        raise UserError(f"data: {place}: no person in it has a joint and a box to be cropped by")
    boxes = np.concatenate([selection.persons.box for selection in selections.values()])[:, 2:]
    half = int(np.median(boxes[:, 1]))
    size, shape = _size(boxes)
    pictures = sum(len(selection.pictures) for selection in selections.values())
    return Start(
        title=f"people with {len(source.skeleton)} joints",
        found=(
            f"{sum(counts.values()):,} people in {pictures:,} pictures: {first_of(source.skeleton.joints, 20)}.",
            f"Half of the people are {half} pixels tall or more.",
            *(f"{note}." for note in dict.fromkeys(notes)),
        ),
        source=name,
        data=(
            Line("size", size, f"[height, width] of a person's crop: {shape}"),
            *_fractions(counts),
            Line("unreadable", "skip", "leave out people whose picture cannot be read, and name them; refuse: stop"),
        ),
        student=Line("student", "simcc_tiny", "what you want to ship: `classroomkd list models`, simcc:timm:NAME"),
        mentors=("simcc_base", "simcc_small", "heatmap_small"),
        mentor="{name: NAME, model: hrnet_w32, weights: FILE, size: [256, 192], head: {aligned: stride}}",
        train=training(_left(counts), UPDATES, "adamw", 0.002, at=32),
        task="pose",
    )


def _open(place: Path) -> tuple[str, PersonSource]:
    """The source that reads it: MPII's layout is looked for first, COCO's is whatever else there is."""
    wrong: list[UserError] = []
    request = Request(unreadable="skip", reads="persons", task="pose")
    names = SOURCES if not (place / "annot").is_dir() else SOURCES[::-1]
    for name in names:
        try:
            opened: Any = open_source(f"{name}:{place}", request)
        except UserError as error:
            wrong.append(error)
            continue
        assert isinstance(opened, PersonSource)
        return name, opened
    raise wrong[0]


def _size(boxes: np.ndarray) -> tuple[list[int], str]:
    """[height, width] for boxes (n, 2) of width and height, and the rule."""
    height = largest_below(float(np.median(boxes[:, 1])) * 1.25, HEIGHTS)
    rule = f"the largest height of {' and '.join(map(str, HEIGHTS))} that half of the people fill"
    if float(np.mean(boxes[:, 0] > boxes[:, 1])) > WIDE:
        return [height, height], f"{rule}; square, as many are wider than tall"
    return [height, height * 3 // 4], rule


def _fractions(counts: Mapping[str, int]) -> list[Line]:
    """The shares that are split off, where a part has no file of its own."""
    whys = {
        "val": ("val_fraction", "by picture: chooses the best epoch, and is never trained on"),
        "test": ("test_fraction", "by picture: for the final score"),
    }
    return [Line(key, getattr(DataSettings, key), why) for part, (key, why) in whys.items() if part not in counts]


def _left(counts: Mapping[str, int]) -> int:
    """The people who are left for the training, about: whole pictures are split off."""
    left = float(counts.get("all", counts.get("train", 0)))
    for part, fraction in (("test", DataSettings.test_fraction), ("val", DataSettings.val_fraction)):
        left *= 1 if part in counts else 1 - fraction
    return int(left)
