"""Six small pose networks that two processor cores train at 64 to 128 pixels; ours, not from a paper.

``simcc_*`` answer with SimCC bins from a map of stride 8, ``heatmap_*`` with maps of stride 4; ``tiny`` are students,
``base`` mentors that a run trains itself. The stem pools before it normalises, so the large maps are touched once;
from there on residual blocks. Where the body goes to a coarser map than the head reads, the coarse one comes back by
1x1 convolutions and is added, so that the joints of a limb know of each other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.errors import UserError
from classroomkd.models.pose.heads import SPLIT, HeatmapHead, PoseNet, SimCCHead
from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, stage
from classroomkd.models.zoo.resnet import BasicBlock

__all__ = ["TinyBody", "tiny_pose"]


class TinyBody(nn.Module):
    """Stem, levels of residual blocks at H/4, H/8, ..., and the way back to ``stride``.

    ``(B, in_channels, H, W)`` to ``(B, channels, H/stride, W/stride)``; odd sides are rounded as convolutions do.

    Args:
        widths: channels of the stem and of each level.
        blocks: residual blocks of each level.
        stride: 4 or 8, of the map that comes out.
        in_channels: channels of the crops.
    """

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], stride: int, in_channels: int) -> None:
        super().__init__()
        stem = widths[0]
        self.stem = nn.Sequential(conv_3x3(in_channels, stem, 2), nn.MaxPool2d(2), nn.BatchNorm2d(stem), nn.ReLU())
        self.levels = nn.ModuleList(
            stage(BasicBlock, inputs, outputs, count, 1 if place == 0 else 2)
            for place, ((inputs, outputs), count) in enumerate(zip(pairwise(widths), blocks, strict=True))
        )
        first = {4: 1, 8: 2}[stride]  # the level, counted from one, whose stride it is
        back = list(pairwise(widths[first:]))[::-1]
        self.back = nn.ModuleList(_Join(coarse, fine) for fine, coarse in back)
        self.channels = widths[first]

    def forward(self, x: Tensor) -> Tensor:
        """Crops to the map of the head."""
        x = self.stem(x)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        for join, fine in zip(self.back, maps[-2::-1], strict=False):
            x = join(x, fine)
        return x


class _Join(nn.Module):
    """Adds a coarse map, ``(B, coarse, h, w)``, to a fine one, ``(B, fine, 2h, 2w)``, which gives its shape."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.conv = conv_1x1(coarse, fine)
        self.bn = nn.BatchNorm2d(fine)

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        return F.relu(fine + F.interpolate(self.bn(self.conv(x)), size=fine.shape[-2:]))


def tiny_pose(
    *,
    kind: Literal["simcc", "heatmap"],
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    joints: int,
    size: tuple[int, int],
    in_channels: int,
) -> PoseNet:
    """A built-in network of either kind; see :class:`TinyBody`."""
    if kind == "heatmap":
        if any(side % 4 for side in size):
            raise UserError(f"built-in heatmap networks need sides that are multiples of 4, not {size[0]}x{size[1]}")
        body = TinyBody(widths, blocks, 4, in_channels)
        return PoseNet(body, HeatmapHead(body.channels, joints), {"kind": "heatmap", "stride": 4})
    body = TinyBody(widths, blocks, 8, in_channels)
    cells = (_cells(size[0]), _cells(size[1]))
    return PoseNet(body, SimCCHead(body.channels, cells, joints, size), {"kind": "simcc", "split": SPLIT})


def _cells(side: int) -> int:
    """Cells of stride 8 along a side: a convolution that rounds up, a pooling that rounds down, one that rounds up."""
    return ((side + 1) // 2 // 2 + 1) // 2
