"""RTMPose's form (Jiang et al., 2023): CSPNeXt of timm, a 7x7 convolution to one map a joint, attention, SimCC bins.

The parameter counts are those of the published networks (3.34, 5.47, 13.59 and 27.66 million at 17 joints and
256x192). Published weights do not load: they have other names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.pose.backbones import TimmBody
from classroomkd.models.pose.heads import SPLIT, PoseNet, bin_counts

__all__ = ["GatedAttention", "RTMHead", "ScaleNorm", "rtmpose"]


class ScaleNorm(nn.Module):
    """Vectors at one learned length: ``(..., D)`` to ``(..., D)`` with a root mean square of ``gain``."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., D)``."""
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
        scaled: Tensor = x / root.clamp_min(1e-5) * self.gain
        return scaled


class GatedAttention(nn.Module):
    """A gated attention unit (Hua et al., 2022, section 3) over the joints: ``(B, K, D)`` to ``(B, K, D)``.

    One projection makes gate, values and a small shared base; queries and keys are two affine images of the base, and
    the squared ReLU of their products takes the softmax's place.
    """

    def __init__(self, width: int, shared: int = 128, expansion: int = 2) -> None:
        super().__init__()
        self.parts = [expansion * width, expansion * width, shared]
        self.norm = ScaleNorm()
        self.project = nn.Linear(width, sum(self.parts), bias=False)
        self.gamma = nn.Parameter(torch.rand(2, shared))
        self.beta = nn.Parameter(torch.rand(2, shared))
        self.out = nn.Linear(expansion * width, width, bias=False)
        self.shortcut = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, K, D)`` to ``(B, K, D)``."""
        gate, values, base = torch.split(F.silu(self.project(self.norm(x))), self.parts, dim=-1)
        queries, keys = (base[..., None, :] * self.gamma + self.beta).unbind(-2)
        scores = F.relu(queries @ keys.transpose(-1, -2) / math.sqrt(base.shape[-1])).square()
        mixed: Tensor = self.out(gate * (scores @ values))
        return x * self.shortcut + mixed


class RTMHead(nn.Module):
    """``(B, C, h, w)`` to SimCC bins ``(B, K, X + Y)``.

    Args:
        inputs: channels of the body's map.
        cells: (h, w) of the body's map.
        joints: K.
        size: (H, W) of the crop in pixels.
        width: numbers a joint has on the way.
    """

    def __init__(
        self, inputs: int, cells: tuple[int, int], joints: int, size: tuple[int, int], width: int = 256
    ) -> None:
        super().__init__()
        self.maps = nn.Conv2d(inputs, joints, 7, padding=3)
        count = cells[0] * cells[1]
        self.embed = nn.Sequential(ScaleNorm(), nn.Linear(count, width, bias=False), GatedAttention(width))
        self.bins = nn.Linear(width, sum(bin_counts(size)), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, K, X + Y)``."""
        answer: Tensor = self.bins(self.embed(self.maps(x).flatten(2)))
        return answer


def rtmpose(*, name: str, joints: int, size: tuple[int, int], in_channels: int) -> PoseNet:
    """RTMPose on one of timm's CSPNeXt; its last map (stride 32) whatever the size of the crop."""
    body = TimmBody(name, name, size, in_channels)
    head = RTMHead(body.channels, body.cells, joints, size)
    return PoseNet(body, head, {"kind": "simcc", "split": SPLIT})
