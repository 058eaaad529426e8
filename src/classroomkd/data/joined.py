"""Pixels of several places as one: pictures with labels and those without."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from classroomkd.data.images import Device, MemoryPixels, Part, Pixels

__all__ = ["JoinedPixels", "joined"]


class JoinedPixels:
    """The images of ``pieces``, one after the other; all of one shape and on one device."""

    def __init__(self, pieces: Sequence[Pixels]) -> None:
        assert len({piece.shape for piece in pieces}) == 1, [piece.shape for piece in pieces]
        self.pieces = tuple(pieces)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.pieces[0].shape

    @property
    def decodes(self) -> bool:
        """Whether fetching decodes files, and nothing is read that need not bear threads (a foreign Dataset)."""
        threads = all(piece.decodes or isinstance(piece, MemoryPixels) for piece in self.pieces)
        return threads and any(piece.decodes for piece in self.pieces)

    @property
    def device(self) -> torch.device:
        """Where fetched images are."""
        return self.pieces[0].device

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def fetch(self, index: Tensor) -> Tensor:
        """The images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``."""
        out = torch.empty((len(index), *self.shape), dtype=torch.uint8, device=self.device)
        index, first = index.cpu(), 0
        for piece in self.pieces:
            (places,) = torch.nonzero((index >= first) & (index < first + len(piece)), as_tuple=True)
            if len(places):
                out[places.to(out.device)] = piece.fetch(index[places] - first)
            first += len(piece)
        return out

    def to(self, device: Device) -> Self:
        """The same pixels, fetched onto ``device``."""
        moved = copy.copy(self)
        moved.pieces = tuple(piece.to(device) for piece in self.pieces)
        return moved


def joined(parts: Sequence[Part]) -> Part:
    """The samples of all ``parts`` in that order, as one part; pixels in memory stay in memory."""
    pixels: Pixels
    if all(isinstance(part.pixels, MemoryPixels) for part in parts):
        pixels = MemoryPixels(torch.cat([part.pixels.fetch(part.rows) for part in parts]))
        rows = torch.arange(len(pixels))
    else:
        pixels = JoinedPixels([part.pixels for part in parts])
        first = [sum(len(part.pixels) for part in parts[:place]) for place in range(len(parts))]
        rows = torch.cat([part.rows + start for part, start in zip(parts, first, strict=True)])
    target, ids = (torch.cat([getattr(part, name) for part in parts]) for name in ("target", "ids"))
    return Part(pixels, target, ids, rows, parts[0].target_kind)
