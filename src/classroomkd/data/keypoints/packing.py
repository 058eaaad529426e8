"""``People`` as plain data and tensors, for a packed image set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classroomkd.data.keypoints.crops import Canvas
from classroomkd.data.keypoints.people import Annotations, People, Picture

__all__ = ["pack_people", "unpack_people"]

_ARRAYS = ("ids", "origin", "step", "score", "bare")
_GROUPS = ("persons", "others")


def pack_people(people: People) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What describes ``people``, and its arrays by name."""
    arrays = {name: getattr(people, name) for name in _ARRAYS}
    for group in _GROUPS:
        arrays |= {
            f"{group}.{entry.name}": getattr(getattr(people, group), entry.name) for entry in fields(Annotations)
        }
    plain = {
        "canvas": people.canvas.plain(), "pictures": [list(picture) for picture in people.pictures],
        "boxes": people.boxes, "view_options": dict(people.view_options),
    }  # fmt: skip
    return plain, {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def unpack_people(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> People:
    """The people that :func:`pack_people` described."""
    arrays: dict[str, Any] = {name: tensors[name].numpy() for name in _ARRAYS}
    arrays |= {
        group: Annotations(**{entry.name: tensors[f"{group}.{entry.name}"].numpy() for entry in fields(Annotations)})
        for group in _GROUPS
    }
    return People(
        canvas=Canvas.from_plain(plain["canvas"]),
        pictures=tuple(Picture(*entry) for entry in plain["pictures"]),
        boxes=str(plain["boxes"]),
        view_options={str(key): float(value) for key, value in plain["view_options"].items()},
        **arrays,
    )
