"""What a score of poses is computed from: annotated people and predictions, as arrays. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd.errors import UserError

__all__ = ["Floats", "Ints", "Predictions", "Truth", "as_ids", "check_together", "same_joints"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Truth:
    """N annotated people of all images, in the order of the annotation file. Arrays are converted on the way in.

    Attributes:
        image: (N,) image ids, whole numbers.
        joints: (N, K, 3): x, y in image pixels and v (0 not labelled, 1 hidden, 2 visible). A person without a
            labelled joint is no target: answers near its box are neither right nor wrong.
        area: (N,) px², COCO's ``area`` (of the segment, not of the box).
        box: (N, 4): x, y, width, height.
        crowd: (N,) bool, COCO's ``iscrowd``; None: nobody.
        images: ids of every image that was looked at, those without people too (answers there are false alarms);
            None: the images in ``image``.
    """

    image: Ints
    joints: Floats
    area: Floats
    box: Floats
    crowd: NDArray[np.bool_] | None = None
    images: Ints | None = None

    def __post_init__(self) -> None:
        n = _convert(self, ("image", "joints", "area", "box"))
        _expect("truth", "joints", self.joints, n, (None, 3))
        _expect("truth", "area", self.area, n, ())
        _expect("truth", "box", self.box, n, (4,))
        crowd = np.zeros(n, bool) if self.crowd is None else np.asarray(self.crowd).astype(bool)
        _expect("truth", "crowd", crowd, n, ())
        object.__setattr__(self, "crowd", crowd)
        object.__setattr__(self, "images", np.unique(self.image if self.images is None else as_ids(self.images)))
        assert self.images is not None
        same_images(self.image, self.images)


@dataclass(frozen=True, eq=False)
class Predictions:
    """N answers, in the order of the results file. Arrays are converted on the way in.

    Attributes:
        image: (N,) image ids.
        joints: (N, K, 2) or (N, K, 3): x, y in image pixels, and a joint's score, which the OKS does not use.
        score: (N,) of the person.
        area: (N,) px²; None: of the joints' bounding rectangle, pycocotools' rule for results without ``bbox``.
    """

    image: Ints
    joints: Floats
    score: Floats
    area: Floats | None = None

    def __post_init__(self) -> None:
        n = _convert(self, ("image", "joints", "score"))
        _expect("predictions", "joints", self.joints, n, (None, 2 if self.joints.shape[-1:] == (2,) else 3))
        _expect("predictions", "score", self.score, n, ())
        if self.area is not None:
            object.__setattr__(self, "area", np.asarray(self.area, np.float64))
            _expect("predictions", "area", self.area, n, ())

    def areas(self) -> Floats:
        """(N,) px²: ``area``, or that of the joints' bounding rectangle."""
        if self.area is not None:
            return self.area
        if not len(self.joints):
            return np.zeros(0)
        extent = self.joints[..., :2].max(1) - self.joints[..., :2].min(1)
        return np.asarray(extent[:, 0] * extent[:, 1])


def as_ids(value: ArrayLike) -> Ints:
    """Image ids (N,) as whole numbers."""
    ids = np.asarray(value)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise UserError(f"image ids must be a list of whole numbers, got an array {ids.shape} of {ids.dtype}")
    return ids.astype(np.int64)


def check_together(truth: Truth, answers: Predictions, sigmas: ArrayLike) -> None:
    """Whether answers can be scored against a truth with the sigmas (K,) of a skeleton.

    Raises:
        UserError: an answer for an image that nobody looked at, or numbers of joints that differ.
    """
    same_joints(sigmas, truth.joints, "the truth")
    same_joints(sigmas, answers.joints, "an answer")
    assert truth.images is not None
    same_images(answers.image, truth.images)


def same_images(images: Ints, known: Ints) -> None:
    """An answer for an image that nobody annotated can be neither right nor wrong."""
    strange = np.setdiff1d(images, known)
    if strange.size:
        listed = ", ".join(str(i) for i in strange[:5].tolist()) + (", …" if strange.size > 5 else "")
        raise UserError(
            f"{strange.size} image(s) of the people are not among the images of the truth ({listed}): score against "
            "the annotations of the same part"
        )


def same_joints(sigmas: ArrayLike, joints: Floats, place: str) -> Floats:
    """The sigmas (K,), after a look at whether ``joints`` (N, K, …) has as many."""
    values = np.asarray(sigmas, np.float64)
    if values.ndim != 1 or joints.shape[1:2] != values.shape:
        raise UserError(
            f"{place} has {joints.shape[1]} joints a person and there are {values.size} sigmas: use those of its "
            "own skeleton"
        )
    return values


def _convert(record: Truth | Predictions, names: tuple[str, ...]) -> int:
    """Fields to arrays; gives back N."""
    for name in names:
        value = getattr(record, name)
        object.__setattr__(record, name, as_ids(value) if name == "image" else np.asarray(value, np.float64))
    return len(record.image)


def _expect(place: str, name: str, value: NDArray[np.generic], n: int, shape: tuple[int | None, ...]) -> None:
    fits = value.ndim == 1 + len(shape) and value.shape[0] == n
    if not fits or any(w is not None and w != h for w, h in zip(shape, value.shape[1:], strict=True)):
        wanted = ", ".join(str(n) if i == 0 else str(w or "K") for i, w in enumerate((n, *shape)))
        raise UserError(f"{place}.{name} must have the shape ({wanted}), got {value.shape}")
    if not np.isfinite(value).all():
        first = int(np.flatnonzero(~np.isfinite(value.reshape(n, -1)).all(1))[0])
        raise UserError(f"{place}.{name} of person {first} is not finite: leave the person out or mend the number")
