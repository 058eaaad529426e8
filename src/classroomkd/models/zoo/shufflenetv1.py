"""ShuffleNet V1 for 32x32 images (Zhang et al., 2018, table 1): grouped 1x1 convolutions and channel shuffles.

The stem is a 1x1 convolution of stride 1 without pooling, so a 32-pixel image reaches the stages whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, stage

__all__ = ["ShuffleNetV1", "channel_shuffle"]

_STEM = 24


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """``(B, C, H, W)`` with the channels of ``groups`` equal groups dealt out in turn."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class ShuffleUnit(nn.Module):
    """``(B, C, H, W)`` to the same shape, or to ``(B, outputs, H/2, W/2)`` with the pooled input among the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        added = outputs - inputs if stride == 2 else outputs
        middle = added // 4
        self.groups = 1 if inputs == _STEM else groups  # the stem is too thin for groups
        self.conv1 = conv_1x1(inputs, middle, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv_3x3(middle, middle, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv_1x1(middle, added, groups=groups)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the unit's activated output."""
        inside = channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        output: Tensor = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inside)))))
        if self.stride == 1:
            return F.relu(output + x)
        return F.relu(torch.cat([output, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1))


class ShuffleNetV1(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``; the stages work at H/2, H/4 and H/8.

    Args:
        widths: channels of the stages, each divisible by four times ``groups``.
        groups: of the 1x1 convolutions.
        num_classes, in_channels: of the logits and the images.
    """

    def __init__(self, widths: tuple[int, int, int], groups: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = conv_1x1(in_channels, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu1 = nn.ReLU()
        self.layer1 = stage(ShuffleUnit, _STEM, widths[0], 4, 2, groups)
        self.layer2 = stage(ShuffleUnit, widths[0], widths[1], 8, 2, groups)
        self.layer3 = stage(ShuffleUnit, widths[1], widths[2], 4, 2, groups)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits
