"""A crop of random size and shape, resized back to the whole picture, with a mirror image half of the time.

Which crop a view is follows from integers alone (a table of crop sizes and a hash), so it is the same on every
device. The pixels are interpolated by ``grid_sample``, whose result for one image does not depend on the others; CPU
and GPU may differ by one grey level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.data import rng
from classroomkd.data.targets import CLASS, TargetKind
from classroomkd.data.views.base import Views

__all__ = ["ResizedCrop"]

_BOX, _TOP, _LEFT, _FLIP, _TABLE = 21, 22, 23, 24, 25
_DRAWS = 8192


class ResizedCrop(Views):
    """Crops of ``scale`` of the area with an aspect ratio within ``ratio``; unbounded, view 0 is the untouched
    image."""

    scale = (0.35, 1.0)
    ratio = (3 / 4, 4 / 3)

    def __init__(
        self, name: str, *, view_seed: int, image_size: tuple[int, int], target_kind: TargetKind = CLASS
    ) -> None:
        sizes = _crop_sizes(image_size, self.scale, self.ratio)
        super().__init__(name, view_seed, image_size, target_kind=target_kind, tables={"sizes": sizes})
        height, width = image_size
        self.definition = (
            f"{name} scale={self.scale[0]:g}..{self.scale[1]:g} ratio={self.ratio[0]:g}..{self.ratio[1]:g}"
            f" flip=1 bilinear size={height}x{width} view_seed={view_seed} code=1"
        )

    def boxes(self, ids: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """The crops of ``ids``, ``views`` (B,): (B, 4) int64 top, left, height, width, and flip (B,) bool."""
        height, width = self.image_size
        sizes = self._table("sizes", views.device)
        key = rng.tensor_keys(self.view_seed, ids, views)
        crop = sizes[rng.draw(key, _BOX, len(sizes))]
        top = rng.draw(key, _TOP, height + 1 - crop[:, 0])
        left = rng.draw(key, _LEFT, width + 1 - crop[:, 1])
        untouched = views == self.identity
        flip = (rng.draw(key, _FLIP, 2) == 1) & ~untouched
        columns = zip((top, left, crop[:, 0], crop[:, 1]), (0, 0, height, width), strict=True)
        return torch.stack([torch.where(untouched, whole, drawn) for drawn, whole in columns], 1), flip

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``."""
        assert tuple(pixels.shape[-2:]) == self.image_size, (tuple(pixels.shape), self.image_size)
        height, width = self.image_size
        box, flip = self.boxes(ids.to(pixels.device), views.to(pixels.device))
        y = _coordinates(box[:, 0], box[:, 2], height)
        x = _coordinates(box[:, 1], box[:, 3], width)
        x = torch.where(flip[:, None], x.flip(1), x)
        grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
        # Stays inside the crop's own pixel centres, so what lies outside the picture is never read.
        result = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return result.round_().clamp_(0, 255).to(torch.uint8)

    def move(self, target: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.move``; masks: each pixel gets the nearest of its crop."""
        box, flip = self.boxes(ids.to(target.device), views.to(target.device))
        y, x = (_nearest(box[:, n], box[:, n + 2], side) for n, side in enumerate(self.image_size))
        x = torch.where(flip[:, None], x.flip(1), x)
        sample = torch.arange(len(target), device=target.device)
        return target[sample[:, None, None], y[:, :, None], x[:, None, :]]


def _coordinates(start: Tensor, length: Tensor, out: int) -> Tensor:
    """Where the ``out`` pixels of a side look in the source, in grid_sample's -1..1: (B,), (B,) int64 -> (B, out)
    float32."""
    place = (torch.arange(out, device=start.device, dtype=torch.float32) + 0.5) / out
    pixel = start[:, None] + place * length[:, None] - 0.5
    first, last = start[:, None].float(), (start + length - 1)[:, None].float()
    pixel = torch.minimum(torch.maximum(pixel, first), last)
    return (2 * pixel + 1) / out - 1


def _nearest(start: Tensor, length: Tensor, out: int) -> Tensor:
    """The source's pixel nearest to where each of the ``out`` pixels of a side looks: (B,), (B,) -> (B, out) int64."""
    twice_centre = 2 * torch.arange(out, device=start.device) + 1
    return start[:, None] + twice_centre * length[:, None] // (2 * out)


def _crop_sizes(image_size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """(n, 2) int64 crop heights and widths: area uniform in ``scale``, log ratio uniform in ``ratio``, those that fit.

    Where hardly any fits, because the picture itself is longer than ``ratio`` allows, all of them, cut to the picture.
    """
    height, width = image_size
    bits = rng.below(rng.tensor_keys(_TABLE, torch.arange(2 * _DRAWS)), 2**20).view(-1, 2).tolist()
    sizes = []
    for first, second in bits:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * first / 2**20)
        aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * second / 2**20)
        sizes.append((max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))))
    fitting = [size for size in sizes if size[0] <= height and size[1] <= width]
    if len(fitting) < _DRAWS // 16:
        fitting = [(min(rows, height), min(columns, width)) for rows, columns in sizes]
    return torch.tensor(fitting, dtype=torch.int64)
