"""How a puppet is painted: a textured ground, sticks, the body as capsules, an occluder, sensor noise.

Vectorised over figures. Only operations that IEEE 754 rounds exactly are used (see ``puppets``); the two matrix
products of the ground have small dyadic operands, so every order of summation gives the same float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.puppets_pose import Figure
from classroomkd.data.rng import GAMMA, U64, mix, uniform

__all__ = ["draw"]

F32 = NDArray[np.float32]

_STICKS = 6
# Draw numbers of each purpose; apart from each other and from the 64 of `pose`.
_PAINT, _GROUND, _STICK, _NOISE = 64, 128, 1024, 1 << 20

_NECK, _PELVIS = 17, 18  # two further points behind the 17 joints
# The body from back to front: two ends, radius as a share of the height, and its paint (0 skin, 1 shirt, 2 trousers,
# 3 shoes)
_BODY = (
    (11, 13, 0.042, 2), (13, 15, 0.034, 2), (12, 14, 0.042, 2), (14, 16, 0.034, 2), (11, 12, 0.048, 2),
    (_NECK, _PELVIS, 0.066, 1), (5, 6, 0.044, 1), (_NECK, 0, 0.028, 0),
    (5, 7, 0.034, 1), (6, 8, 0.034, 1), (7, 9, 0.028, 0), (8, 10, 0.028, 0),
)  # fmt: skip


class _Canvas:
    """n pictures (n, 3, S, S) in 0..1 and the buffers that painting one capsule after another reuses."""

    def __init__(self, pixels: F32) -> None:
        n, _, size, _ = pixels.shape
        self.pixels = pixels
        self.size = size
        self.line = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.cover, self.x, self.y = (np.empty((n, size, size), np.float32) for _ in range(3))
        self.paint = np.empty_like(pixels)

    def capsule(
        self, start: NDArray[np.float64], end: NDArray[np.float64], radius: NDArray[np.float64], colour: F32
    ) -> None:
        """Paint one capsule per picture: ends (n, 2), radius (n,), all on the unit square; colour (n, 3). Radius 0
        paints nothing."""
        along = end - start
        length = np.maximum((along * along).sum(-1), 2.0**-32)
        ax, ay = (start[:, i, None].astype(np.float32) for i in (0, 1))
        dx, dy = (along[:, i, None].astype(np.float32) for i in (0, 1))
        gx, gy = ((along[:, i] / length).astype(np.float32)[:, None] for i in (0, 1))
        right, down = self.line - ax, self.line - ay  # n, S
        share = np.add((right * gx)[:, None, :], (down * gy)[:, :, None], out=self.cover)
        np.clip(share, 0.0, 1.0, out=share)
        np.multiply(share, dx[:, None], out=self.x)
        np.subtract(right[:, None, :], self.x, out=self.x)
        np.multiply(share, dy[:, None], out=self.y)
        np.subtract(down[:, :, None], self.y, out=self.y)
        np.multiply(self.x, self.x, out=self.x)
        np.multiply(self.y, self.y, out=self.y)
        distance = np.add(self.x, self.y, out=self.cover)
        np.sqrt(distance, out=distance)
        # Coverage falls from 1 to 0 over one pixel at the rim.
        rim = np.where(radius > 0, radius * self.size + 0.5, -1e6).astype(np.float32)[:, None, None]
        np.multiply(distance, np.float32(-self.size), out=distance)
        distance += rim
        np.clip(distance, 0.0, 1.0, out=distance)
        np.subtract(colour[:, :, None, None], self.pixels, out=self.paint)
        self.paint *= self.cover[:, None]
        self.pixels += self.paint


def _lattice(size: int, knots: int) -> F32:
    """(S, knots) weights of linear interpolation between ``knots`` values, multiples of 1/64 that sum to 1."""
    place = (np.arange(size) + 0.5) / size * (knots - 1)
    left = np.minimum(np.floor(place), knots - 2)
    share = np.round((place - left) * 64) / 64
    weight = np.zeros((size, knots), np.float32)
    row = np.arange(size)
    weight[row, left.astype(np.int64)] = 1 - share
    weight[row, left.astype(np.int64) + 1] += share
    return weight


def _texture(key: U64, size: int, knots: int, first: int) -> F32:
    """Smooth random ground (n, 3, S, S) in 0..1 from ``knots`` x ``knots`` random values of 6 bits a channel."""
    value = np.floor(uniform(key, 3 * knots * knots, first) * 64) / 64
    weight = _lattice(size, knots)
    ground: F32 = np.matmul(np.matmul(weight, value.reshape(-1, 3, knots, knots).astype(np.float32)), weight.T)
    return ground


def _colours(key: U64, hard: float) -> tuple[F32, F32]:
    """The ground's colour (n, 3) and the four paints of the figure (n, 4, 3), all in 0..1."""
    draws = uniform(key, 24, _PAINT)
    grey = 0.2 + 0.6 * draws[:, 0]
    ground = np.clip(grey[:, None] + 0.25 * (draws[:, 1:4] - 0.5), 0.0, 1.0)
    # Every paint keeps a distance in brightness from the ground, on the side where there is room, unless hard says
    # otherwise.
    side = np.where(draws[:, 4] < 1.0 - grey, 1.0, -1.0)
    gap = np.maximum(0.50 - 0.34 * hard, 0.05)
    tone = grey[:, None] + side[:, None] * (gap + 0.28 * draws[:, 5:9])
    paint = np.clip(tone[:, :, None] + 0.45 * (draws[:, 9:21].reshape(-1, 4, 3) - 0.5), 0.0, 1.0)
    return ground.astype(np.float32), paint.astype(np.float32)


def _sticks(canvas: _Canvas, key: U64, paint: F32, hard: float) -> None:
    """Limb-like distractors behind the figure."""
    draws = uniform(key, 9 * _STICKS, _STICK).reshape(-1, _STICKS, 9)
    for stick in range(_STICKS):
        draw = draws[:, stick]
        middle, reach = draw[:, 0:2], 0.17 * (2.0 * draw[:, 2:4] - 1.0)
        radius = np.where(draw[:, 4] < 0.92 * hard, 0.016 + 0.016 * draw[:, 5], 0.0)
        colour = (0.6 * paint[:, stick % 4] + 0.4 * draw[:, 6:9]).astype(np.float32)
        canvas.capsule(middle - reach, middle + reach, radius, colour)


def draw(key: U64, figure: Figure, size: int, hard: float, noise: float | None) -> NDArray[np.uint8]:
    """Paint the figures: (n, 3, S, S) uint8. ``noise`` is a standard deviation in grey levels, None for what ``hard``
    says."""
    ground, paint = _colours(key, hard)
    coarse = _texture(key, size, 5, _GROUND)
    fine = _texture(key, size, 15, _GROUND + 128)
    coarse *= np.float32(0.41 * hard)
    fine *= np.float32(0.34 * hard)
    coarse += fine
    coarse += (ground - np.float32(0.375 * hard))[:, :, None, None]
    canvas = _Canvas(coarse)
    _sticks(canvas, key, paint, hard)

    points = np.concatenate([figure.joints, figure.neck[:, None], figure.pelvis[:, None]], 1)
    shade = (uniform(key, len(_BODY), _PAINT + 32) - 0.5) * 0.16
    for part, (start, end, radius, colour) in enumerate(_BODY):
        tint = np.clip(paint[:, colour] + shade[:, part, None], 0.0, 1.0).astype(np.float32)
        canvas.capsule(points[:, start], points[:, end], radius * figure.scale, tint)
    head = (figure.joints[:, 3] + figure.joints[:, 4]) / 2
    canvas.capsule(head, head, 0.078 * figure.scale, paint[:, 0])
    dark = np.where(paint[:, 0].sum(-1, keepdims=True) > 1.2, np.float32(0.08), np.float32(0.95)) * np.ones(
        3, np.float32
    )
    for eye in (1, 2):
        place = figure.joints[:, eye]
        canvas.capsule(place, place, 0.015 * figure.scale, dark)
    front = uniform(key, 3, _PAINT + 48).astype(np.float32)
    canvas.capsule(figure.occluder[:, 0], figure.occluder[:, 1], figure.occluder_radius, front)
    return _expose(canvas.pixels, key, 17.0 * hard if noise is None else noise)


def _expose(pixels: F32, key: U64, noise: float) -> NDArray[np.uint8]:
    """Add triangular noise of standard deviation ``noise`` grey levels and round to uint8."""
    n, _, size, _ = pixels.shape
    pixels *= np.float32(255)
    pixels += np.float32(0.5)
    if noise > 0:
        place = (np.arange(size * size, dtype=np.int64) + _NOISE).view(np.uint64) * np.uint64(GAMMA)
        bits = mix(key[:, None] + place).reshape(n, size, size)
        scale = np.float32(noise / 104.51)  # the standard deviation of the sum of two bytes
        for channel in range(3):
            two = (bits >> np.uint64(16 * channel)).astype(np.uint16)
            pixels[:, channel] += ((two & 255).astype(np.float32) + (two >> 8).astype(np.float32) - 255) * scale
    np.clip(pixels, 0, 255, out=pixels)
    return pixels.astype(np.uint8)
