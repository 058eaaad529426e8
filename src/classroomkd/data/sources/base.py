"""What a source gives to ``load``: parts before limits and splits, already in the shape the geometry rule says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classroomkd.data import geometry
from classroomkd.data.images import MemoryPixels, Pixels
from classroomkd.data.sources.walking import shown
from classroomkd.data.spec import RESIZE
from classroomkd.data.targets import CLASS, TargetKind
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data.skeleton import Skeleton
    from classroomkd.data.sources.pictures import Pictures

__all__ = ["Folder", "Raw", "Request", "Source", "fingerprint", "first_of", "memory"]


@dataclass(frozen=True)
class Request:
    """How to open a source: options of that source, what to do with unreadable files, trust, what its samples are
    to have (a key of ``Entry.opens``), for which task that is, for messages, the geometry rule: ``size`` and
    ``resize``, names of classes that the user gave, whether labels are read at all, and the joints of persons who have
    boxes alone."""

    size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    unreadable: str = "refuse"
    trust_code: bool = False
    reads: str = "classes"
    task: str = ""
    resize: str = RESIZE[0]
    classes: Any = None
    labels: bool = True
    skeleton: Skeleton | None = None


@dataclass(frozen=True, eq=False)
class Raw:
    """One part of a source: pixels of N images, their targets (N, …) of ``kind`` (classes (N,) int64, masks, …), and
    their places (N,) int64 in the part's stable order before anything was skipped; ``total`` is how many places that
    order has. ``sides`` counts the pictures by (height, width) before they were brought to the pixels' shape, where
    that is known; ``names`` are those of the images at every place of that order, where they have some, and
    ``pictures`` where these files are.
    """

    pixels: Pixels
    target: Tensor
    places: Tensor
    total: int
    kind: TargetKind = CLASS
    sides: Mapping[tuple[int, int], int] = field(default_factory=dict)
    names: Sequence[str] = ()
    pictures: Pictures | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """An opened source. ``parts`` has either ``all`` (to be split by ``load``) or ``train`` with or without ``val``
    and ``test``."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Raw]
    views: str
    fingerprint: str
    notes: tuple[str, ...] = ()


def memory(images: Tensor | NDArray[np.uint8], target: NDArray[Any] | Tensor, request: Request, where: str) -> Raw:
    """A part in memory: images ``uint8`` (N, H, W) or (N, 1 | 3, H, W), classes (N,)."""
    labels = torch.as_tensor(np.array(target), dtype=torch.int64)
    pixels = MemoryPixels(geometry.fit(images, request.size, request.resize, where=where))
    assert len(pixels) == len(labels), (len(pixels), len(labels))
    height, width = images.shape[-2:]
    return Raw(pixels, labels, torch.arange(len(labels)), len(labels), sides={(height, width): len(labels)})


def fingerprint(definition: str, *arrays: NDArray[Any] | Tensor) -> str:
    """SHA-256 (hex) of a text and of every array's dtype, shape and bytes, in little-endian order."""
    total = hashlib.sha256(definition.encode())
    for value in arrays:
        array = np.ascontiguousarray(value)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(f"|{array.dtype.str}{array.shape}|".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


def first_of(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list and how many follow, for a message; nothing for none."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class Folder:
    """A folder the user named, and the sentences for what is not in it."""

    def __init__(self, argument: str, source: str) -> None:
        self.source = source
        self.path = Path(argument).expanduser()
        if not os.path.exists(self.path):  # which a folder above that may not be entered does not stop, as Path's
            near = self.path.absolute()
            while not os.path.exists(near):
                near = near.parent
            raise UserError(
                f"data: {source}:{argument}: there is no folder {self.path} (looked from {Path.cwd()}; {near}"
                f" exists and holds {self.inside(near)}). Give the path of a folder that exists"
            )

    @staticmethod
    def inside(path: Path) -> str:
        """The first names in a folder, for an error message."""
        if not path.is_dir():
            return "(a file)"
        try:
            names = sorted(shown(entry.name) + ("/" if entry.is_dir() else "") for entry in path.iterdir())
        except OSError as error:
            return f"what may not be seen ({error.strerror})"
        return first_of(names) or "nothing"

    def missing(self, wanted: str) -> UserError:
        """The error for a folder that lacks ``wanted``."""
        return UserError(f"data: {self.source}:{self.path}: looked for {wanted}; found {self.inside(self.path)}")
