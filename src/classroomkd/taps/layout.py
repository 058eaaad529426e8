"""Layouts: how an activation lies in memory, found once in a dry run and undone from then on.

Methods see ``(B, channels, H, W)`` or, pooled, ``(B, channels)``. Networks also hold their activations with the
channels last ``(B, H, W, C)`` (Swin), as tokens ``(B, N, C)`` with class, distillation and register tokens in front
(ViT), or as vectors ``(B, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from classroomkd.errors import UserError

__all__ = ["Layout", "image_size", "layout_of"]

# Tokens in front of the grid: none, a class token, and one for distillation, four registers, both.
_PREFIXES = (0, 1, 2, 4, 5)


@dataclass(frozen=True)
class Layout:
    """How the activations at one tap lie in memory. Applying it reads shapes only and never waits for a device.

    Attributes:
        kind: ``nchw``, ``nhwc``, ``tokens`` ``(B, prefix + H W, C)``, or ``vector`` ``(B, C)``.
        channels, height, width: of the map; a vector is a map of 1x1.
        prefix: tokens in front of the grid, which belong to no place in the image.
    """

    kind: Literal["nchw", "nhwc", "tokens", "vector"]
    channels: int
    height: int
    width: int
    prefix: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """The shape of one sample's map."""
        return self.channels, self.height, self.width

    def as_map(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)``, a view wherever one can be had. Tokens in front of the grid are left out."""
        if self.kind == "nchw":
            return x
        if self.kind == "vector":
            return x[:, :, None, None]
        if self.kind == "tokens":
            x = self._patches(x).reshape(-1, self.height, self.width, self.channels)
        return x.permute(0, 3, 1, 2)

    def as_pooled(self, x: Tensor) -> Tensor:
        """``(B, channels)``: the mean over the map; tokens in front of the grid are left out."""
        if self.kind == "vector":
            return x
        if self.kind == "tokens":
            return self._patches(x).mean(1)
        return x.mean((2, 3) if self.kind == "nchw" else (1, 2))

    def prefix_of(self, x: Tensor) -> Tensor | None:
        """The tokens in front of the grid, ``(B, prefix, channels)``, or None where there are none."""
        return x[:, : self.prefix] if self.prefix else None

    def restore(self, value: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The activation whose map is ``value`` ``(B, channels, H, W)``; the inverse of :meth:`as_map`.

        ``prefix`` are the tokens to put in front, ``(1 or B, prefix, channels)``.
        """
        if self.kind == "nchw":
            return value
        if self.kind == "vector":
            return value.flatten(1)
        value = value.permute(0, 2, 3, 1)
        if self.kind == "nhwc":
            return value
        value = value.flatten(1, 2)
        if not self.prefix:
            return value
        assert prefix is not None, "a layout with tokens in front needs them back"
        return torch.cat([prefix.expand(value.shape[0], -1, -1), value], dim=1)

    def _patches(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.prefix + self.height * self.width:
            raise UserError(
                f"a tap of {self.prefix} + {self.height}x{self.width} tokens met {x.shape[1]}: the dry run saw images "
                "of another size"
            )
        return x[:, self.prefix :]


def image_size(inputs: Tensor) -> tuple[int, int] | None:
    """``(H, W)`` of a network's inputs, or None when they are no images."""
    return (inputs.shape[2], inputs.shape[3]) if inputs.dim() == 4 else None


def layout_of(
    example: Tensor | Sequence[int], *, image: Sequence[int] | None = None, what: str = "the activation"
) -> Layout:
    """The layout of an activation, from its shape.

    A map has the image's proportions: of ``(B, a, b, c)`` the pair that fits better are height and width, and a tie is
    read as channels first. Tokens are a grid of the image's proportions behind 0, 1, 2, 4 or 5 others, the fewest that
    fit; grids that divide the image come first.

    Args:
        example: an activation, or its shape, the batch first.
        image: ``(H, W)`` of the input it was computed from; None = square.
        what: how messages call it.

    Raises:
        UserError: a shape that is none of these.
    """
    shape = tuple(example.shape if isinstance(example, Tensor) else example)
    height, width = (int(side) for side in image) if image is not None else (0, 0)
    layout = None
    if len(shape) == 2:
        layout = Layout("vector", shape[1], 1, 1)
    elif len(shape) == 3:
        layout = _tokens(shape[1], shape[2], height, width)
    elif len(shape) == 4:
        _, a, b, c = shape
        first, last = _misfit(b, c, height, width), _misfit(a, b, height, width)
        layout = Layout("nchw", a, b, c) if first <= last else Layout("nhwc", c, a, b)
    if layout is None:
        raise UserError(
            f"{what} has shape {shape}, which is no map (B, channels, H, W) or (B, H, W, channels), no tokens "
            "(B, a grid behind 0, 1, 2, 4 or 5 others, channels) and no vector (B, channels); choose another tap"
        )
    return layout


def _misfit(rows: int, columns: int, height: int, width: int) -> float:
    """How far the proportions are from the image's; 0 = the same. A map finer than the image is no map."""
    if height and (rows > 2 * height or columns > 2 * width):
        return math.inf
    return abs(math.log((rows * (width or 1)) / (columns * (height or 1)))) if rows * columns else 0.0


def _tokens(count: int, channels: int, height: int, width: int) -> Layout | None:
    fits = []
    for prefix in _PREFIXES:
        for rows in range(1, count - prefix + 1):
            columns, rest = divmod(count - prefix, rows)
            if not rest and rows * (width or 1) == columns * (height or 1) and (rows > 1 or prefix < 2):
                divides = not height or (height % rows == 0 and width % columns == 0)
                fits.append((not divides, prefix, Layout("tokens", channels, rows, columns, prefix)))
    return min(fits, key=lambda fit: fit[:2])[2] if fits else None
