"""Where the samples of an image set of persons are: picture, crop and truth of each, and what else is annotated.

``People`` knows the samples of all parts by their id. Image coordinates have pixel centres at whole numbers. Does not
import torch; ids and coordinates may be arrays or tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd.data.keypoints.crops import Canvas

__all__ = ["AREA_SHARE", "UNKNOWN_SIZE", "People", "Persons", "Picture", "join"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AREA_SHARE = 0.53
"""Of a box, where an annotation has no area: about what a segment covers of its box in COCO."""


UNKNOWN_SIZE = (10**6, 10**6)
"""(height, width) of a picture that nobody can read: nothing is outside of it."""


class Picture(NamedTuple):
    """One picture: the id it has in its annotation file, its file's name there, and its size in pixels."""

    id: int
    file: str
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Persons:
    """n persons (or crowds), from the file that lists them to the score: one row each in every array.

    Attributes:
        picture: (n,) places in the pictures of the file, or in :attr:`People.pictures`.
        box: (n, 4) x, y, width, height.
        joints: (n, K, 3) x, y, v in image pixels.
        area: (n,) the segment's, pixels².
        crowd: (n,) bool.
        annotation: (n,) the file's ids, whatever whole numbers they are; -1 for a detector's box.
        detector: (n,) bool: a detector's box, which nobody annotated.
        place: (n,) in the source's stable order.
        head: (n,) diagonal of the head's box in pixels, NaN where nothing says it.
        score: (n,) of the box: a detector's, or 1.
        region: (n, 4) what is cropped: centre x and y, width and height, between pixel centres, before it is widened
            to the input's aspect.
        origin: (n, 2) image place (x, y) of input pixel (0, 0); NaN before the crops are known.
        step: (n,) image pixels per input pixel; NaN before the crops are known.
    """

    picture: Ints
    box: Floats
    joints: Floats
    area: Floats
    crowd: NDArray[np.bool_]
    annotation: Ints
    detector: NDArray[np.bool_]
    place: Ints
    head: Floats
    score: Floats
    region: Floats
    origin: Floats
    step: Floats

    def __len__(self) -> int:
        return len(self.picture)

    @staticmethod
    def of(picture: Any, box: Any, joints: Any, region: Any = None, **more: Any) -> Persons:
        """Persons from lists or arrays; what is not given of ``more`` is filled in: ``AREA_SHARE`` of the box, no
        crowd, numbers from 0, no head, a score of 1."""
        places = np.asarray(picture, np.int64).reshape(-1)
        n = len(places)
        boxes = np.asarray(box, np.float64).reshape(n, 4)
        order = np.arange(n, dtype=np.int64)
        unknown = np.full((n, 4), np.nan)
        filled = {
            "area": boxes[:, 2] * boxes[:, 3] * AREA_SHARE, "crowd": np.zeros(n, bool), "annotation": order,
            "detector": np.zeros(n, bool),
            "head": unknown[:, 0], "score": np.ones(n), "origin": unknown[:, :2], "step": unknown[:, 0],
        }  # fmt: skip
        given = {
            name: value if more.get(name) is None else np.asarray(more[name], value.dtype).reshape(value.shape)
            for name, value in filled.items()
        }
        regions = unknown if region is None else np.asarray(region, np.float64).reshape(n, 4)
        assert more.keys() <= filled.keys(), more.keys()
        return Persons(places, boxes, np.asarray(joints, np.float64), place=order, region=regions, **given)

    @staticmethod
    def detected(picture: Ints, box: Floats, score: Floats, region: Floats, joints: int) -> Persons:
        """A detector's boxes; none of the ``joints`` joints has a label."""
        unlabelled = np.zeros((len(box), joints, 3))
        nobody, every = np.full(len(box), -1), np.ones(len(box), bool)
        return Persons.of(picture, box, unlabelled, region, annotation=nobody, detector=every, score=score)

    def take(self, index: NDArray[Any]) -> Persons:
        """The persons ``index`` (places or a mask)."""
        return Persons(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})


def join(*parts: Persons) -> Persons:
    """All of them, one after the other."""
    names = [entry.name for entry in fields(Persons)]
    return Persons(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, eq=False)
class People:
    """The samples of all parts, N of them, and everything a scorer asks about their pictures.

    Attributes:
        canvas: how samples are stored; its ``size`` (H, W) is the input's.
        pictures: every picture, of all parts.
        ids: (N,) the samples' ids, ascending.
        persons: N persons, row by row, with their crops.
        others: annotations that are no samples: crowds, persons without joints, those that could not be cropped.
        bare: places of pictures of the test part that have no sample.
        boxes: where the test part's boxes come from: ``gt`` or ``detector``.
        category: the id of their category, which answers are written with.
        view_options: what ``data.options`` says about views: scale, rotation, rotation_p, half_body, flip.
    """

    canvas: Canvas
    pictures: tuple[Picture, ...]
    ids: Ints
    persons: Persons
    others: Persons
    bare: Ints
    boxes: str = "gt"
    view_options: Mapping[str, float] = field(default_factory=dict)
    category: int = 1

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input."""
        return self.canvas.size

    @property
    def origin(self) -> Floats:
        """(N, 2) image place (x, y) of input pixel (0, 0)."""
        return self.persons.origin

    @property
    def step(self) -> Floats:
        """(N,) image pixels per input pixel."""
        return self.persons.step

    @property
    def score(self) -> Floats:
        """(N,) of the box: a detector's, or 1."""
        return self.persons.score

    def rows(self, ids: ArrayLike) -> Ints:
        """The rows (B,) of the samples ``ids`` (B,)."""
        wanted = np.asarray(ids, dtype=np.int64).reshape(-1)
        place = np.searchsorted(self.ids, wanted)
        assert np.array_equal(self.ids.take(place, mode="clip"), wanted), "ids that are no samples"
        return place

    def of(self, ids: ArrayLike) -> Persons:
        """The annotations of the samples ``ids`` (B,), in that order."""
        return self.persons.take(self.rows(ids))

    def image(self, ids: ArrayLike) -> Ints:
        """The picture ids (B,), as in their file, of the samples ``ids`` (B,)."""
        return np.array([self.pictures[place].id for place in self.persons.picture[self.rows(ids)]], np.int64)

    @cached_property
    def numbers(self) -> Ints:
        """By place in ``pictures``, a number that no other picture has, in the order of their ids: files that were
        read together may use an id twice."""
        order = np.lexsort((np.arange(len(self.pictures)), np.array([p.id for p in self.pictures], np.int64)))
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order))
        return numbers

    def file(self, ids: ArrayLike) -> list[str]:
        """The picture files of the samples ``ids`` (B,)."""
        return [self.pictures[place].file for place in self.persons.picture[self.rows(ids)]]

    def to_image(self, ids: ArrayLike, xy: ArrayLike) -> Floats:
        """Input pixels (B, …, 2 or 3) of the samples ``ids`` (B,) in image pixels; a third number stays."""
        origin, step, place = self._crops(ids, xy)
        place[..., :2] = place[..., :2] * step + origin
        return place

    def to_input(self, ids: ArrayLike, xy: ArrayLike) -> Floats:
        """Image pixels (B, …, 2 or 3) in pixels of the input of the samples ``ids`` (B,); a third number stays."""
        origin, step, place = self._crops(ids, xy)
        place[..., :2] = (place[..., :2] - origin) / step
        return place

    def _crops(self, ids: ArrayLike, xy: ArrayLike) -> tuple[Floats, Floats, Floats]:
        row, place = self.rows(ids), np.asarray(xy).astype(np.float64)
        assert len(place) == len(row), (place.shape, row.shape)
        middle = (1,) * (place.ndim - 2)
        return self.origin[row].reshape(-1, *middle, 2), self.step[row].reshape(-1, *middle, 1), place

    def truth(self, ids: ArrayLike, *, bare: bool = False) -> Persons:
        """Every annotation of the pictures that the samples ``ids`` come from, by picture and in its file's order.

        ``bare``: also of the test part's pictures without a sample, where whatever is annotated was missed: what the
        test part is scored on.
        """
        places = np.unique(self.persons.picture[self.rows(ids)])
        if bare:
            places = np.union1d(places, self.bare)
        real = self.persons.take(~self.persons.detector & np.isin(self.persons.picture, places))
        annotated = join(real, self.others.take(np.isin(self.others.picture, places)))
        return annotated.take(np.lexsort((annotated.place, annotated.picture)))
