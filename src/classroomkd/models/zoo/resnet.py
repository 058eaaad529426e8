"""ResNets for 32x32 images: 6n+2 layers in three stages of basic blocks (He et al., 2016, section 4.2).

As the distillation benchmarks build them: where a block changes the shape its shortcut is a 1x1 convolution with batch
normalisation, not the paper's parameter-free padding.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, initialise, stage

__all__ = ["BasicBlock", "CifarResNet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``(B, C, H, W) -> (B, outputs, H/stride, W/stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv_3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv_1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the block's output after its last ReLU."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.downsample(x))


class CifarResNet(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``; the stages work at H, H/2 and H/4.

    Args:
        depth: 6n+2 layers.
        widths: channels of the stem and of the three stages.
        num_classes, in_channels: of the logits and the images.
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        assert depth % 6 == 2, depth
        blocks, (stem, first, second, third) = (depth - 2) // 6, widths
        self.conv1 = conv_3x3(in_channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stage(BasicBlock, stem, first, blocks, stride=1)
        self.layer2 = stage(BasicBlock, first, second, blocks, stride=2)
        self.layer3 = stage(BasicBlock, second, third, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits
