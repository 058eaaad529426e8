"""Crops of a zero-padded image and its mirror image, enumerated.

With crop offsets ``dy, dx`` in 0..2·pad (pad = 4: 0..8) and ``flip`` in 0..1, ``crop_flip`` has the view id ``(dy * 9
+ dx) * 2 + flip`` (0..161; the untouched image is 80), ``crop`` has ``dy * 9 + dx`` (0..80; 40), ``flip`` has 0..1 (0),
``none`` has 0. Pixels do not depend on the view seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.data.views.base import Views

__all__ = ["CropFlip"]


class CropFlip(Views):
    """Zero padding by ``pad``, a crop of the old size at (dy, dx), and a mirror image when ``flip``; all combinations
    enumerated."""

    def __init__(self, name: str, *, view_seed: int, image_size: tuple[int, int], pad: int, flip: bool) -> None:
        self.name = name
        self.view_seed = view_seed
        self.pad = pad
        self.flips = 2 if flip else 1
        self.image_size = image_size
        side = 2 * pad + 1
        self.count = side * side * self.flips
        self.identity = (pad * side + pad) * self.flips
        height, width = image_size
        self.definition = f"{name} pad={pad} fill=0 flip={int(flip)} size={height}x{width} count={self.count} code=1"
        self._tables: dict[torch.device, Tensor] = {}

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``. ``ids`` are not used: the view says it all."""
        assert tuple(pixels.shape[-2:]) == self.image_size, (tuple(pixels.shape), self.image_size)
        if self.count == 1:
            return pixels.clone()
        batch, channels, height, width = pixels.shape
        table = self._table(pixels.device)
        place = table[views.to(pixels.device)]  # B, H·W
        if self.pad:
            pixels = torch.nn.functional.pad(pixels, [self.pad] * 4)
        flat = pixels.flatten(2)
        # One flat gather: about ten times faster than cropping image by image.
        moved = flat.gather(2, place.unsqueeze(1).expand(-1, channels, -1))
        return moved.view(batch, channels, height, width)

    def _table(self, device: torch.device) -> Tensor:
        """(count, H·W) int64: for each view, the place in the padded image of every pixel of the result."""
        if device not in self._tables:
            height, width = self.image_size
            side, padded = 2 * self.pad + 1, width + 2 * self.pad
            y = torch.arange(side).view(-1, 1, 1, 1, 1) + torch.arange(height).view(1, 1, 1, -1, 1)
            column = torch.arange(width)
            columns = torch.stack([column, column.flip(0)])[: self.flips]
            x = torch.arange(side).view(1, -1, 1, 1, 1) + columns.view(1, 1, self.flips, 1, width)
            self._tables[device] = (y * padded + x).reshape(self.count or 0, height * width).to(device)
        return self._tables[device]
