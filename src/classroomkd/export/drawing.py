"""Skeletons drawn on pictures, with Pillow."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from classroomkd._files import atomic_write_bytes
from classroomkd.data.skeleton import Skeleton

__all__ = ["SURE", "draw_skeletons", "save_drawn"]

SURE = 0.2  # joints below are drawn thin; the value below which a joint does not count for its person's score
_SMALL, _LARGE = 512, 1600  # pixels of the longer side; smaller pictures are enlarged, larger ones reduced
_FINER = 2  # drawn so many times larger, then reduced: smooth edges
_LEFT, _RIGHT, _MIDDLE = (255, 140, 30), (50, 160, 255), (90, 220, 110)
_EDGE = (0, 0, 0, 150)


def draw_skeletons(
    picture: NDArray[np.uint8], joints: ArrayLike, skeleton: Skeleton, sure: float = SURE
) -> Image.Image:
    """The picture with everybody's joints and links: left orange, right blue, the middle green.

    Joints with a score below ``sure``, and links to them, are thin; those with a score of 0 are not drawn.

    Args:
        picture: (h, w, 3).
        joints: (n, K, 3): x, y (pixel centres at whole numbers) and a score.
        skeleton: of the K joints.
        sure: see above.

    Returns:
        An RGB image, its longer side between 512 and 1600 pixels.
    """
    places = np.asarray(joints, np.float64)
    assert places.shape[1:] == (len(skeleton), 3), places.shape
    height, width = picture.shape[:2]
    longer = max(height, width)
    scale = math.ceil(_SMALL / longer) if longer < _SMALL else min(1.0, _LARGE / longer)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", (size[0] * _FINER, size[1] * _FINER))
    pen = ImageDraw.Draw(layer)
    for person in places:
        at = np.concatenate([(person[:, :2] + 0.5) * scale * _FINER - 0.5, person[:, 2:]], 1)
        _person(pen, at, skeleton, sure, max(layer.size))
    shown.paste(layer := layer.resize(size, Image.Resampling.BOX), (0, 0), layer)
    return shown


def _person(pen: ImageDraw.ImageDraw, at: NDArray[np.float64], skeleton: Skeleton, sure: float, longer: int) -> None:
    """One person, in pixels of the layer."""
    known, certain = at[:, 2] > 0, at[:, 2] >= max(sure, 1e-12)
    if not known.any():
        return
    body = at[certain if certain.sum() > 1 else known, :2]
    extent = float(np.hypot(*(body.max(0) - body.min(0))))
    wide = max(3.0, min(extent * 0.022, longer * 0.01))
    thin = max(1.5, wide / 4)
    for a, b in sorted(skeleton.links, key=lambda link: bool(certain[list(link)].all())):
        if known[a] and known[b]:
            ends = [(float(at[i, 0]), float(at[i, 1])) for i in (a, b)]
            both = bool(certain[a] and certain[b])
            if both:
                pen.line(ends, fill=_EDGE, width=round(wide + 3 * _FINER))
            pen.line(ends, fill=(*_colour(skeleton, a, b), 255 if both else 200), width=round(wide if both else thin))
    for place in range(len(at)):
        if known[place]:
            x, y = (float(v) for v in at[place, :2])
            colour = (*_colour(skeleton, place, place), 255)
            radius = wide * (0.9 if certain[place] else 0.7)
            ring = (x - radius, y - radius, x + radius, y + radius)
            if certain[place]:
                pen.ellipse(ring, fill=colour, outline=_EDGE, width=_FINER)
            else:
                pen.ellipse(ring, outline=colour, width=round(thin))


def _colour(skeleton: Skeleton, a: int, b: int) -> tuple[int, int, int]:
    sides = {skeleton.joints[place].partition("_")[0] for place in (a, b)}
    if ("left" in sides) == ("right" in sides):
        return _MIDDLE
    return _LEFT if "left" in sides else _RIGHT


def save_drawn(picture: NDArray[np.uint8], joints: ArrayLike, skeleton: Skeleton, target: Path) -> None:
    """Write :func:`draw_skeletons` as a JPEG file; missing folders are made."""
    file = io.BytesIO()
    draw_skeletons(picture, joints, skeleton).save(file, "JPEG", quality=90)
    atomic_write_bytes(target, file.getvalue())
