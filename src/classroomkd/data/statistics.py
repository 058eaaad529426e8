"""Mean and standard deviation of pixels, exact: sums of integers, divided once."""

from __future__ import annotations

import math

import torch

from classroomkd.data.images import MemoryPixels, Part

__all__ = ["MOST_DECODED", "mean_std"]

MOST_DECODED = 2000
"""Images that are decoded on demand are too slow to read twice: this many, evenly spread, stand for all of them."""


def mean_std(
    part: Part, window: tuple[slice, slice] = (slice(None), slice(None))
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Per channel mean and standard deviation of pixels scaled to 0..1, and over how many images they were taken.

    All images of the part when they are in memory, else at most ``MOST_DECODED``. A channel without variation gets 1.0.
    Of a canvas, ``window`` is the rows and columns that count.
    """
    count = len(part)
    places = torch.arange(count, device=part.rows.device)
    if not isinstance(part.pixels, MemoryPixels) and count > MOST_DECODED:
        places = torch.arange(MOST_DECODED, device=places.device) * count // MOST_DECODED
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
