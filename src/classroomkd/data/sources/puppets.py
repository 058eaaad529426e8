"""Source ``puppets``: the embedded default (``classroomkd.data.puppets``), drawn when it is opened."""

from __future__ import annotations

import numpy as np

from classroomkd.data import puppets
from classroomkd.data.sources.base import Request, Source, fingerprint, memory
from classroomkd.errors import UserError

__all__ = ["TEST_START", "open_puppets"]

TEST_START = 10_000_000
"""Index of the first test scene: apart from every train scene, and the same whatever the number of train scenes."""


def open_puppets(argument: str, request: Request) -> Source:
    """``options``: train (4000), test (2000) scenes, hard (0.7), seed (0), image_size (48)."""
    options = {"train": 4000, "test": 2000, "hard": 0.7, "seed": 0, "image_size": 48, **request.options}
    counts = {part: int(options[part]) for part in ("train", "test")}
    for part, count in counts.items():
        if not 20 <= count <= 1_000_000:
            raise UserError(f"data.options.{part}: {count} puppets; give 20 to 1,000,000")
    size, hard, seed = int(options["image_size"]), float(options["hard"]), int(options["seed"])
    definition = f"puppets {puppets.VERSION} seed={seed} hard={hard!r} image_size={size} size={request.size}"
    parts = {}
    for part, start in (("train", 0), ("test", TEST_START)):
        drawn = puppets.scenes(seed, np.arange(start, start + counts[part]), image_size=size, hard=hard)
        parts[part] = memory(drawn.images, drawn.labels, request.size, "puppets")
    # Scenes are a pure function of this text, so it stands for the bytes. No flip: it would turn wave_left into
    # wave_right.
    return Source("puppets", puppets.CLASSES, parts, "crop", fingerprint(f"{definition} {counts}"))
