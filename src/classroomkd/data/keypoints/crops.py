"""Crops around persons: where in its picture a sample's input is, and the warp that brings it there.

Everything is measured between pixel centres, which lie at whole numbers (UDP): an input of W x H pixels spans W - 1 by
H - 1 spacings. A crop has one step, image pixels per input pixel, the same in both directions: a person's region (w, h)
is widened to the input's aspect, (W - 1) / (H - 1), and enlarged by ``PADDING``, so the step is PADDING * max(w / (W -
1), h / (H - 1)).

A sample is stored as a *canvas*: a square of ``ROOM`` times the input's longer side around the same centre, so that
views can turn, shrink and shift it. One canvas pixel is 1 / ``scale`` input pixels. Input pixel (0, 0) lies on a canvas
pixel, so at scale 1 the untouched input is a slice of the canvas. Does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PADDING", "ROOM", "Canvas", "crop", "region", "render"]

PADDING = 1.25
ROOM = 1.5

Floats = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Canvas:
    """The square around the input: ``size`` (H, W) of the input, ``scale`` canvas pixels per input pixel."""

    size: Size
    scale: float = 1.0

    @property
    def side(self) -> int:
        """Sides of the square, in canvas pixels."""
        return round(ROOM * max(self.size) * self.scale)

    @property
    def offset(self) -> tuple[int, int]:
        """(x, y) of the canvas pixel on which input pixel (0, 0) lies."""
        height, width = self.size
        x, y = ((self.side - 1 - self.scale * (n - 1)) / 2 for n in (width, height))
        return math.floor(x), math.floor(y)


def crop(regions: Floats, size: Size, padding: float = PADDING) -> tuple[Floats, Floats]:
    """Where the inputs of persons are: regions (N, 4), centre x and y, width and height in spacings, image pixels ->
    image place of input pixel (0, 0), (N, 2), and image pixels per input pixel, (N,)."""
    height, width = size
    step = padding * np.maximum(regions[:, 2] / (width - 1), regions[:, 3] / (height - 1))
    half = np.array([(width - 1) / 2, (height - 1) / 2])
    return regions[:, :2] - step[:, None] * half, step


def region(size: Size, other: Size) -> tuple[float, float, float]:
    """How an input of size ``other`` lies over one of ``size``, with the same centre and just large enough to hold it:
    (step, x, y) with place in ``size`` = (x, y) + step * place in ``other``."""
    if size == other:
        return 1.0, 0.0, 0.0
    (height, width), (rows, columns) = size, other
    step = max((width - 1) / (columns - 1), (height - 1) / (rows - 1))
    return step, ((width - 1) - step * (columns - 1)) / 2, ((height - 1) - step * (rows - 1)) / 2


def render(image: NDArray[np.uint8], origin: Floats, step: float, canvas: Canvas) -> NDArray[np.uint8]:
    """The canvas of one person: picture (h, w, 3) uint8 -> (3, side, side) uint8, by one bilinear warp; 0 outside.

    Where a canvas pixel is n >= 2 or more picture pixels wide, it is the mean of n x n bilinear samples one pixel
    apart, so that no pixel is skipped.
    """
    per = step / canvas.scale
    first = [origin[axis] - per * canvas.offset[axis] for axis in (0, 1)]
    taps = max(1, math.floor(per))
    rows, row_place, row_weight = _weights(first[1], per, canvas.side, taps, image.shape[0])
    columns, column_place, column_weight = _weights(first[0], per, canvas.side, taps, image.shape[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return np.zeros((3, canvas.side, canvas.side), np.uint8)
    piece = image[rows, columns].astype(np.float32)
    # A sum of a few gathered rows, in a fixed order: the same bits on every machine.
    across = sum(piece[row_place[k]] * row_weight[k][:, None, None] for k in range(taps + 1))
    assert isinstance(across, np.ndarray)
    across = np.ascontiguousarray(across.transpose(2, 1, 0))  # channel, source column, canvas row
    canvas_pixels = sum(across[:, column_place[k]] * column_weight[k][None, :, None] for k in range(taps + 1))
    assert isinstance(canvas_pixels, np.ndarray)
    return np.ascontiguousarray(np.floor(canvas_pixels + np.float32(0.5)).astype(np.uint8).transpose(0, 2, 1))


def _weights(
    first: float, per: float, side: int, taps: int, length: int
) -> tuple[slice, NDArray[np.int64], NDArray[np.float32]]:
    """Which source pixels one axis needs: their slice, and for ``taps + 1`` neighbours of each canvas pixel the place
    within the slice and the weight, both (taps + 1, side); the weight outside the picture is 0."""
    place = first + per * np.arange(side) - (taps - 1) / 2
    low = np.floor(place).astype(np.int64)
    share = place - low
    source = low + np.arange(taps + 1)[:, None]
    weight = np.full((taps + 1, side), 1 / taps)
    weight[0], weight[taps] = (1 - share) / taps, share / taps
    weight[(source < 0) | (source >= length)] = 0
    start, stop = max(0, int(low[0])), min(length, int(low[-1]) + taps + 1)
    return slice(start, stop), np.clip(source, start, max(stop - 1, start)) - start, weight.astype(np.float32)
