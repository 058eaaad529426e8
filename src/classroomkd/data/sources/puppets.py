"""Source ``puppets``: the embedded default (``classroomkd.data.puppets``), drawn when it is opened; as images with a
class, or as persons with joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classroomkd.data import puppets
from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource, boxed
from classroomkd.data.keypoints.people import Persons, Picture
from classroomkd.data.skeleton import COCO
from classroomkd.data.sources.base import Request, Source, fingerprint, memory
from classroomkd.errors import UserError

__all__ = ["TEST_START", "open_puppet_people", "open_puppets"]

TEST_START = 10_000_000
"""Index of the first test scene: apart from every train scene, and the same whatever the number of train scenes."""

_STARTS = {"train": 0, "test": TEST_START}


def _options(request: Request, image_size: int) -> tuple[dict[str, int], int, float, int]:
    """How many scenes each part has, their size, how hard they are, and the seed."""
    options = {"train": 4000, "test": 2000, "hard": 0.7, "seed": 0, "image_size": image_size, **request.options}
    counts = {part: int(options[part]) for part in ("train", "test")}
    for part, count in counts.items():
        if not 20 <= count <= 1_000_000:
            raise UserError(f"data.options.{part}: {count} puppets; give 20 to 1,000,000")
    return counts, int(options["image_size"]), float(options["hard"]), int(options["seed"])


def open_puppets(argument: str, request: Request) -> Source:
    """``options``: train (4000), test (2000) scenes, hard (0.7), seed (0), image_size (48)."""
    counts, size, hard, seed = _options(request, 48)
    definition = f"puppets {puppets.VERSION} seed={seed} hard={hard!r} image_size={size} size={request.size}"
    parts = {}
    for part, start in _STARTS.items():
        drawn = puppets.scenes(seed, np.arange(start, start + counts[part]), image_size=size, hard=hard)
        parts[part] = memory(drawn.images, drawn.labels, request, "puppets")
    # Scenes are a pure function of this text, so it stands for the bytes. No flip: it would turn wave_left into
    # wave_right.
    return Source("puppets", puppets.CLASSES, parts, "crop", fingerprint(f"{definition} {counts}"))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Scenes as pictures; ``start`` is the index of the first."""

    images: NDArray[np.uint8]
    start: int

    def picture(self, picture: Picture) -> NDArray[np.uint8]:
        """See ``files.Store``."""
        image: NDArray[np.uint8] = self.images[picture.id - self.start].transpose(1, 2, 0)
        return image

    def digest(self, names: Sequence[str]) -> str:
        """Nothing to add: the listing's digest says which scenes these are."""
        return ""


def open_puppet_people(argument: str, request: Request) -> PersonSource:
    """The same scenes as one person each, with COCO's 17 joints; ``options`` as above, image_size (64)."""
    counts, size, hard, seed = _options(request, 64)
    parts = {}
    for part, start in _STARTS.items():
        index = np.arange(start, start + counts[part])
        drawn = puppets.scenes(seed, index, image_size=size, hard=hard)
        # The generator's pixel centres lie at .5, ours at whole numbers; its boxes count pixels already.
        joints = drawn.joints.astype(np.float64)
        joints[..., :2] = np.where(joints[..., 2:] > 0, joints[..., :2] - 0.5, 0)
        boxes = drawn.boxes.astype(np.float64)
        pictures = tuple(Picture(int(i), f"puppet_{i:08d}.png", size, size) for i in index)
        place = np.arange(len(index))
        parts[part] = AnnotationFile(
            f"puppets ({part})",
            pictures,
            Persons.of(place, boxes, joints, boxed(boxes, pictures, place)),
            _Drawn(drawn.images, start),
            fingerprint(f"puppets {puppets.VERSION} {part} {counts[part]} {seed=} {hard=} {size=}"),
        )
    return PersonSource("puppets", COCO, parts, (64, 64), "person_flip", photographs=False)
