"""ShuffleNet V2 for 32x32 images (Ma et al., 2018, table 5): channel split, one branch convolved, shuffled back.

The stem is a 1x1 convolution of stride 1 without pooling, so a 32-pixel image reaches the stages whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3
from classroomkd.models.zoo.shufflenetv1 import channel_shuffle

__all__ = ["ShuffleNetV2"]

_STEM = 24


class SplitUnit(nn.Module):
    """Half of the channels pass, half are convolved: ``(B, C, H, W)`` to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv_1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv_3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv_1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``."""
        passed, inside = x.chunk(2, dim=1)
        inside = F.relu(self.bn1(self.conv1(inside)))
        inside = F.relu(self.bn3(self.conv3(self.bn2(self.conv2(inside)))))
        return channel_shuffle(torch.cat([passed, inside], dim=1), 2)


class DownUnit(nn.Module):
    """Both branches see all channels and halve the image: ``(B, inputs, H, W) -> (B, outputs, H/2, W/2)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv_3x3(inputs, inputs, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv_1x1(inputs, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv_1x1(inputs, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv_3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv_1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H/2, W/2)``."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = F.relu(self.bn3(self.conv3(x)))
        right = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))))
        return channel_shuffle(torch.cat([left, right], dim=1), 2)


class ShuffleNetV2(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``; the stages work at H/2, H/4 and H/8.

    ``widths`` are the channels of the three stages and of the last 1x1 convolution.
    """

    def __init__(self, widths: tuple[int, int, int, int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third, last = widths
        self.conv1 = conv_1x1(in_channels, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(_STEM, first, 4)
        self.layer2 = _stage(first, second, 8)
        self.layer3 = _stage(second, third, 4)
        self.conv2 = conv_1x1(third, last)
        self.bn2 = nn.BatchNorm2d(last)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inputs, outputs), *(SplitUnit(outputs) for _ in range(units - 1)))
