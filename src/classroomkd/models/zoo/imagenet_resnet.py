"""ResNet-18, -34 and -50 (He et al., 2016, table 1) with a stem for small images: 3x3, stride 1, no max-pooling."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, initialise

__all__ = ["ImageNetResNet"]


class Plain(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``(B, C, H, W) -> (B, width, H/stride, W/stride)``."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv_3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the block's output after its last ReLU."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 beside a shortcut: ``(B, C, H, W) -> (B, 4 width, H/stride, W/stride)``."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv_3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv_1x1(width, 4 * width)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the block's output after its last ReLU."""
        inside = F.relu(self.bn1(self.conv1(x)))
        inside = F.relu(self.bn2(self.conv2(inside)))
        return F.relu(self.bn3(self.conv3(inside)) + self.shortcut(x))


_BLOCKS: dict[str, type[Plain] | type[Bottleneck]] = {"plain": Plain, "bottleneck": Bottleneck}


class ImageNetResNet(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``; the stages work at H, H/2, H/4 and H/8.

    Args:
        block: "plain" or "bottleneck".
        blocks: how many in each of the four stages.
        num_classes, in_channels: of the logits and the images.
    """

    def __init__(self, block: str, blocks: tuple[int, int, int, int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        kind = _BLOCKS[block]
        self.conv1 = conv_3x3(in_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        wide = kind.expansion
        self.layer1 = _stage(kind, 64, 64, blocks[0], stride=1)
        self.layer2 = _stage(kind, 64 * wide, 128, blocks[1], stride=2)
        self.layer3 = _stage(kind, 128 * wide, 256, blocks[2], stride=2)
        self.layer4 = _stage(kind, 256 * wide, 512, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(512 * wide, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _stage(block: type[Plain] | type[Bottleneck], inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [block(width * block.expansion, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(block(inputs, width, stride), *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv_1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
