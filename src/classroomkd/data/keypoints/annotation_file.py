"""What a source of persons gives to ``load``: per part, the pictures and everything that is annotated in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.keypoints.files import Store
from classroomkd.data.keypoints.people import Floats, Persons, Picture
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError

__all__ = ["AnnotationFile", "PersonSource", "boxed", "read_json"]


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """One part: n persons in the file's order.

    ``where`` names the file in messages; ``digest`` is the SHA-256 of the annotations; with ``detected``, the samples
    are a detector's boxes and the annotations are truth alone. ``unlabelled``: nobody's joints are known, so all train
    without.
    """

    where: str
    pictures: tuple[Picture, ...]
    persons: Persons
    store: Store
    digest: str
    detected: Persons | None = None
    unlabelled: bool = False


@dataclass(frozen=True, eq=False)
class PersonSource:
    """An opened source of persons. ``parts`` has ``all``, or ``train`` with or without ``val`` and ``test``.

    ``category`` is the id of the persons' category and ``title`` its name; ``paired`` whether it says itself which
    joints swap in a mirror; ``size`` (H, W) and ``views`` are defaults; ``photographs``:
    normalised by ImageNet's mean and standard deviation, as the field does, else by the training part's own.
    ``named``: whether anybody has said which joints there are, else ``skeleton`` only holds their place.
    """

    name: str
    skeleton: Skeleton
    parts: Mapping[str, AnnotationFile]
    size: tuple[int, int]
    views: str
    photographs: bool = True
    notes: tuple[str, ...] = ()
    category: int = 1
    title: str = ""
    paired: bool = False
    named: bool = True


def boxed(box: Floats, pictures: Sequence[Picture], place: NDArray[np.int64]) -> Floats:
    """Regions (n, 4) of boxes (n, 4) that count pixels (x to x + width - 1), cut to their picture as HRNet does; width
    or height is negative where nothing is left."""
    last = np.array([[p.width - 1, p.height - 1] for p in pictures], np.float64).reshape(-1, 2)[place]
    low = np.maximum(box[:, :2], 0)
    span = np.where(box[:, 2:] < 1, -1.0, box[:, 2:] - 1)  # NaN stays; not a pixel wide: high < low
    high = np.minimum(box[:, :2] + span, last)
    return np.concatenate([(low + high) / 2, high - low], 1)


def read_json(data: bytes, where: str) -> Any:
    """What the JSON file ``where`` holds.

    Raises:
        UserError: when it is cut off or no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"data: {where} is no complete JSON ({error}): it is cut off or damaged; get it again"
        ) from error
