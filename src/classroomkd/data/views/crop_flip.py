"""Crops of a zero-padded image and its mirror image, enumerated.

With crop offsets ``dy, dx`` in 0..2·pad (pad = 4: 0..8) and ``flip`` in 0..1, ``crop_flip`` has the view id ``(dy * 9
+ dx) * 2 + flip`` (0..161; the untouched image is 80), ``crop`` has ``dy * 9 + dx`` (0..80; 40), ``flip`` has 0..1 (0),
``none`` has 0. Pixels do not depend on the view seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.data.targets import CLASS, TargetKind
from classroomkd.data.views.base import Views

__all__ = ["CropFlip"]


class CropFlip(Views):
    """Zero padding by ``pad``, a crop of the old size at (dy, dx), and a mirror image when ``flip``; all combinations
    enumerated."""

    count: int

    def __init__(
        self,
        name: str,
        *,
        view_seed: int,
        image_size: tuple[int, int],
        pad: int,
        flip: bool,
        target_kind: TargetKind = CLASS,
    ) -> None:
        self.pad = pad
        self.flips = 2 if flip else 1
        side = 2 * pad + 1
        untouched = (pad * side + pad) * self.flips
        super().__init__(
            name, view_seed, image_size, count=side * side * self.flips, identity=untouched, target_kind=target_kind
        )
        height, width = image_size
        self.definition = f"{name} pad={pad} fill=0 flip={int(flip)} size={height}x{width} count={self.count} code=1"
        self._places: dict[tuple[torch.device, int], Tensor] = {}

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``. ``ids`` are not used: the view says it all."""
        assert tuple(pixels.shape[-2:]) == self.image_size, (tuple(pixels.shape), self.image_size)
        return self._moved(pixels, views, fill=0)

    def move(self, target: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.move``."""
        planes = target.unsqueeze(1) if target.dim() == 3 else target
        times = target.shape[-1] // self.image_size[1]
        return self._moved(planes, views, self.target_kind.fill, times).view(target.shape)

    def _moved(self, pixels: Tensor, views: Tensor, fill: int, times: int = 1) -> Tensor:
        """``pixels`` (B, C, H, W) of ``times`` the images' sides, with ``fill`` around them."""
        if self.count == 1:
            return pixels.clone()
        batch, channels, height, width = pixels.shape
        place = self._places_on(pixels.device, times)[views.to(pixels.device)]  # B, H·W
        if self.pad:
            pixels = torch.nn.functional.pad(pixels, [self.pad * times] * 4, value=fill)
        flat = pixels.flatten(2)
        # One flat gather: about ten times faster than cropping image by image.
        moved = flat.gather(2, place.unsqueeze(1).expand(-1, channels, -1))
        return moved.view(batch, channels, height, width)

    def _places_on(self, device: torch.device, times: int) -> Tensor:
        """(count, H·W) int64: for each view, the place in the padded image of every pixel of the result, where both
        have ``times`` the images' sides."""
        if (device, times) not in self._places:
            height, width = (times * side for side in self.image_size)
            side, padded = 2 * self.pad + 1, width + 2 * self.pad * times
            offset = times * torch.arange(side)
            y = offset.view(-1, 1, 1, 1, 1) + torch.arange(height).view(1, 1, 1, -1, 1)
            column = torch.arange(width)
            columns = torch.stack([column, column.flip(0)])[: self.flips]
            x = offset.view(1, -1, 1, 1, 1) + columns.view(1, 1, self.flips, 1, width)
            self._places[device, times] = (y * padded + x).reshape(self.count, height * width).to(device)
        return self._places[device, times]
