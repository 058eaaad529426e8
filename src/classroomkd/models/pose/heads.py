"""Heads: from a body's map ``(B, C, h, w)`` to SimCC bins ``(B, K, X + Y)`` or one map a joint ``(B, K, h, w)``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SPLIT", "DeconvHead", "HeatmapHead", "PoseNet", "SimCCHead", "bin_counts", "deconvolutions", "marginals"]

SPLIT = 2.0  # bins a pixel


def bin_counts(size: tuple[int, int]) -> tuple[int, int]:
    """(X, Y): the bins over the width and over the height of a crop (H, W)."""
    return round(size[1] * SPLIT), round(size[0] * SPLIT)


class PoseNet(nn.Module):
    """A body and a head: ``(B, channels, H, W)`` to the head's answer.

    ``head:input`` is the last map ``(B, C, h, w)`` of the body in every such network.

    Attributes:
        pose_head: the kind of answer, ``{"kind": "simcc", "split": 2.0}`` or ``{"kind": "heatmap", "stride": 4}``.
    """

    def __init__(self, body: nn.Module, head: nn.Module, pose_head: dict[str, Any]) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.pose_head = pose_head

    def forward(self, x: Tensor) -> Tensor:
        """Crops ``(B, channels, H, W)`` to ``(B, K, X + Y)`` or ``(B, K, h, w)``."""
        answer: Tensor = self.head(self.body(x))
        return answer


class SimCCHead(nn.Module):
    """One map a joint by a 1x1 convolution, then one linear layer from its cells to the bins of both axes.

    The linear layer is shared by all joints. It starts as what it should become on the whole, a marginal over rows and
    one over columns: as in a heatmap network, a joint's map then only has to light up where the joint is. After 5
    epochs on 2,000 puppets ``simcc_tiny`` had 61 % of the joints within 5 % of the figure's size, and 6 % when the
    layer started at random.

    Args:
        inputs: channels of the body's map.
        cells: (h, w) of the body's map.
        joints: K.
        size: (H, W) of the crop in pixels.
    """

    def __init__(self, inputs: int, cells: tuple[int, int], joints: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.maps = nn.Conv2d(inputs, joints, 1)
        self.bins = nn.Linear(cells[0] * cells[1], sum(bin_counts(size)))
        with torch.no_grad():
            self.bins.weight.copy_(marginals(cells, size))
            nn.init.zeros_(self.bins.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, K, X + Y)``."""
        answer: Tensor = self.bins(self.maps(x).flatten(2))
        return answer


def marginals(cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Weights ``(X + Y, h·w)`` that spread a map's column sums over the x-bins and its row sums over the y-bins.

    A cell counts at a bin by a Gaussian of their distance, one cell wide. The scale is small beside torch's initial
    weights: the maps learn faster then.
    """
    rows, columns = cells

    def spread(count: int, bins: int, side: int) -> Tensor:
        step = (side - 1) / max(count - 1, 1)
        places, centres = torch.arange(bins) / SPLIT, torch.arange(count) * step
        return torch.exp(-((places[:, None] - centres) ** 2) / (2 * step**2))

    x_bins, y_bins = bin_counts(size)
    across = spread(columns, x_bins, size[1])[:, None, :].expand(-1, rows, -1).flatten(1) / rows
    down = spread(rows, y_bins, size[0])[:, :, None].expand(-1, -1, columns).flatten(1) / columns
    return 0.08 * torch.cat([across, down])


class HeatmapHead(nn.Module):
    """One map a joint by a 1x1 convolution: ``(B, C, h, w)`` to ``(B, K, h, w)``."""

    def __init__(self, inputs: int, joints: int) -> None:
        super().__init__()
        self.maps = quiet(nn.Conv2d(inputs, joints, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, K, h, w)``."""
        answer: Tensor = self.maps(x)
        return answer


class DeconvHead(nn.Module):
    """SimpleBaseline's head: transposed convolutions that double the side each, then a 1x1 convolution.

    ``(B, C, h, w)`` to ``(B, K, h·2^count, w·2^count)``.
    """

    def __init__(self, inputs: int, joints: int, count: int = 3, width: int = 256) -> None:
        super().__init__()
        self.deconvs = deconvolutions(inputs, count, width)
        self.maps = quiet(nn.Conv2d(width if count else inputs, joints, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to one map a joint."""
        answer: Tensor = self.maps(self.deconvs(x))
        return answer


def deconvolutions(inputs: int, count: int = 3, width: int = 256) -> nn.Sequential:
    """``count`` times a 4x4 transposed convolution of stride 2, BatchNorm and ReLU (Xiao et al., 2018, section 2)."""
    layers: list[nn.Module] = []
    for place in range(count):
        deconv = nn.ConvTranspose2d(inputs if place == 0 else width, width, 4, 2, padding=1, bias=False)
        nn.init.normal_(deconv.weight, std=0.001)
        layers += [deconv, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def quiet(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with initial weights so small that its maps start near 0, as most cells of a target are."""
    nn.init.normal_(layer.weight, std=0.001)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
