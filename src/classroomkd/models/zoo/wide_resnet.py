"""Wide ResNets for 32x32 images: pre-activation, three stages of k times the width (Zagoruyko and Komodakis, 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, initialise, stage

__all__ = ["WideResNet"]


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions: ``(B, C, H, W) -> (B, outputs, H/stride, W/stride)``.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input; elsewhere it is the
    raw input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv_3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv_3x3(outputs, outputs)
        self.convShortcut = None if inputs == outputs else conv_1x1(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the sum of shortcut and residual, not activated."""
        active = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + shortcut


class WideStage(nn.Module):
    """``blocks`` blocks, the first of which changes width and stride."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layer = stage(WideBlock, inputs, outputs, blocks, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H/stride, W/stride)``."""
        output: Tensor = self.layer(x)
        return output


class WideResNet(nn.Module):
    """WRN-``depth``-``width`` without dropout, ``depth`` = 6n+4; the stages work at H, H/2 and H/4.

    ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        assert depth % 6 == 4, depth
        blocks = (depth - 4) // 6
        self.conv1 = conv_3x3(in_channels, 16)
        self.block1 = WideStage(blocks, 16, 16 * width, 1)
        self.block2 = WideStage(blocks, 16 * width, 32 * width, 2)
        self.block3 = WideStage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * width, num_classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))).flatten(1))
        return logits
