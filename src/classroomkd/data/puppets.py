"""Puppets: jointed figures in ten postures, made from (seed, index); the embedded default data.

One scene gives an image, its class, 17 COCO joints with visibility and a box around the person; two image sizes of
the same (seed, index) are a high- and low-resolution pair. Nothing is stored or downloaded, and no person is in the
pictures. It is a stage for demos and tests, not a benchmark: no figure measured on it says anything about real images.

Every number comes from a counter-based generator, joints are rounded, and drawing uses only operations that IEEE 754
fixes (``+ - * /``, square root, minimum, maximum), so a scene does not depend on the numpy version, the machine or
its batch.

Shapes: N scenes, S image side, 17 joints in COCO's order (``JOINTS``). The figure faces the viewer, so its left side
is on the viewer's right, as in COCO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd.data import rng
from classroomkd.data.puppets_draw import draw
from classroomkd.data.puppets_pose import CLASSES, JOINTS, Figure, pose
from classroomkd.errors import UserError

__all__ = ["CLASSES", "JOINTS", "VERSION", "Scenes", "labels", "scenes"]

VERSION = 1
"""Goes up whenever a scene changes, so that whatever was computed on older scenes is not mistaken for current."""

_LABEL_STREAM, _SCENE_STREAM = 1, 2


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    ``images`` (N, 3, S, S) uint8; ``labels`` (N,) int64, places in ``CLASSES``; ``joints`` (N, 17, 3) float32: x, y
    in pixels, multiples of 1/64, with the centre of the top left pixel at (0.5, 0.5), and the visibility: 2 seen, 1
    hidden by an occluder, 0 outside the picture (then x = y = 0); ``boxes`` (N, 4) float32: x, y, width, height in
    pixels, inside the picture.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    joints: NDArray[np.float32]
    boxes: NDArray[np.float32]


def labels(seed: int, index: ArrayLike) -> NDArray[np.int64]:
    """The classes ``(N,)`` of the scenes ``index`` (N,): every ten indices from a multiple of ten hold each class
    once."""
    index_n = np.asarray(index, dtype=np.int64).reshape(-1)
    block, place = np.divmod(index_n, len(CLASSES))
    order = np.argsort(
        rng.keys(seed, np.int64(_LABEL_STREAM), block[:, None], np.arange(len(CLASSES))), axis=-1, kind="stable"
    )
    return np.take_along_axis(order, place[:, None], axis=-1)[:, 0].astype(np.int64)


def scenes(
    seed: int, index: ArrayLike, *, image_size: int = 48, hard: float = 0.7, noise: float | None = None
) -> Scenes:
    """Draw the scenes ``index`` (N,) of ``seed``; batching does not change a scene.

    ``hard`` (0 to 1.5) scales everything that makes a scene difficult. ``noise`` replaces the sensor noise that follows
    from ``hard`` (standard deviation in grey levels of 255; 0 for super-resolution targets).

    Raises:
        UserError: when ``image_size`` or ``hard`` is outside what can be drawn.
    """
    if not 16 <= image_size <= 1024:
        raise UserError(f"puppets: image_size is {image_size}; give 16 to 1024")
    if not (math.isfinite(hard) and 0.0 <= hard <= 1.5):
        raise UserError(f"puppets: hard is {hard}; give 0 (easy) to 1.5 (hopeless), 0.7 is the default")
    index_n = np.asarray(index, dtype=np.int64).reshape(-1)
    label_n = labels(seed, index_n)
    images = np.empty((len(index_n), 3, image_size, image_size), np.uint8)
    joints = np.zeros((len(index_n), len(JOINTS), 3), np.float32)
    boxes = np.zeros((len(index_n), 4), np.float32)
    # A chunk's planes should stay in the second-level cache; larger chunks are slower, not faster.
    chunk = max(1, 2**16 // image_size**2)
    for start in range(0, len(index_n), chunk):
        part = slice(start, start + chunk)
        key = rng.keys(seed, np.int64(_SCENE_STREAM), index_n[part])
        figure = pose(key, label_n[part], hard)
        images[part] = draw(key, figure, image_size, hard, noise)
        joints[part], boxes[part] = _annotate(figure, image_size)
    return Scenes(images, label_n, joints, boxes)


def _annotate(figure: Figure, image_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Joints (n, 17, 3) and boxes (n, 4) in pixels from unit coordinates."""
    place = np.round(figure.joints * (64 * image_size)) / 64
    inside = ((place >= 0) & (place < image_size)).all(-1)
    seen = np.where(inside, np.where(figure.hidden, 1, 2), 0)
    joints = np.concatenate([np.where(np.expand_dims(inside, -1), place, 0.0), seen[..., None]], -1)
    low = np.clip(np.round((figure.extent[:, 0]) * (64 * image_size)) / 64, 0, image_size)
    high = np.clip(np.round((figure.extent[:, 1]) * (64 * image_size)) / 64, 0, image_size)
    return joints.astype(np.float32), np.concatenate([low, high - low], -1).astype(np.float32)
