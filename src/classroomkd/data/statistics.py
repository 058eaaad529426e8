"""Mean and standard deviation of pixels, exact: sums of integers, divided once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from classroomkd.data.images import MemoryPixels, Part

__all__ = ["DIM", "MOST_DECODED", "brightest", "mean_std"]

MOST_DECODED = 2000
"""Images that are decoded on demand are too slow to read twice: this many, evenly spread, stand for all of them."""


DIM = 64
"""Of 255: a picture without a pixel as bright as this is nearly black."""


def _spread(count: int) -> Tensor:
    """Places of a part of ``count`` images that are decoded on demand: all, or ``MOST_DECODED``, evenly spread."""
    return torch.arange(count) if count <= MOST_DECODED else torch.arange(MOST_DECODED) * count // MOST_DECODED


def brightest(part: Part) -> tuple[Tensor, Tensor]:
    """The highest pixel value (n,) of images of a part, and the places (n,) of these images.

    All images when they are in memory, else about 200 of those that :func:`mean_std` reads.
    """
    places = torch.arange(len(part))
    if not isinstance(part.pixels, MemoryPixels):
        places = _spread(len(part))
        places = places[:: max(1, len(places) // 200)]
    rows = part.rows[places.to(part.rows.device)]
    chunk = max(1, 2**22 // math.prod(part.pixels.shape))
    highest = [part.pixels.fetch(some).flatten(1).amax(1).cpu() for some in torch.split(rows, chunk)]
    return torch.cat(highest), places


def mean_std(
    part: Part, window: tuple[slice, slice] = (slice(None), slice(None))
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Per channel mean and standard deviation of pixels scaled to 0..1, and over how many images they were taken.

    All images of the part when they are in memory, else at most ``MOST_DECODED``. A channel without variation gets 1.0.
    Of a canvas, ``window`` is the rows and columns that count.
    """
    places = torch.arange(len(part), device=part.rows.device)
    if not isinstance(part.pixels, MemoryPixels):
        places = _spread(len(part)).to(places.device)
    channels, height, width = part.pixels.shape
    height, width = len(range(*window[0].indices(height))), len(range(*window[1].indices(width)))
    total, squares = [0] * channels, [0] * channels
    chunk = max(1, 2**22 // (channels * height * width))
    for some in torch.split(places, chunk):
        pixels = part.pixels.fetch(part.rows[some])[..., window[0], window[1]]
        for channel in range(channels):
            # A histogram of 256 counts gives both sums in integers, whatever the number of pixels.
            levels = torch.bincount(pixels[:, channel].reshape(-1).int(), minlength=256).tolist()
            total[channel] += sum(level * times for level, times in enumerate(levels))
            squares[channel] += sum(level * level * times for level, times in enumerate(levels))
    pixels_seen = len(places) * height * width
    mean = tuple(value / pixels_seen / 255 for value in total)
    variance = [
        (square * pixels_seen - value * value) / pixels_seen**2 for square, value in zip(squares, total, strict=True)
    ]
    std = tuple(math.sqrt(value) / 255 or 1.0 for value in variance)
    return mean, std, len(places)
