"""MobileNetV2 (Sandler et al., 2018, table 2) scaled by a width, as the distillation benchmarks run it at 32x32.

Same strides as for large images except the second stage's (1, 2, 2, 1, 2 after a stem of stride 2), so a 32-pixel image
ends at 2x2. The first block keeps its expansion convolution although it expands by 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from classroomkd.models.zoo._blocks import conv_1x1, conv_3x3, initialise, stage

__all__ = ["MobileNetV2"]

# channels at width 1, blocks, stride of the first block
_STAGES = ((24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_LAST = 1280


class InvertedResidual(nn.Module):
    """Expand, filter per channel, project: ``(B, C, H, W) -> (B, outputs, H/stride, W/stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self.conv = nn.Sequential(
            conv_1x1(inputs, inside),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            conv_3x3(inside, inside, stride, groups=inside),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            conv_1x1(inside, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the linear bottleneck, plus the input where shapes allow."""
        output: Tensor = self.conv(x)
        return x + output if self.residual else output


class MobileNetV2(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``; the last features are at H/16.

    Args:
        width: scales all channels but the last 1280.
        expansion: widens the blocks inside.
        num_classes, in_channels: of the logits and the images.
    """

    def __init__(self, width: float, expansion: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        stem, first = int(32 * width), int(16 * width)
        self.conv1 = nn.Sequential(conv_3x3(in_channels, stem, 2), nn.BatchNorm2d(stem), nn.ReLU())
        stages = [nn.Sequential(InvertedResidual(stem, first, 1, 1))]
        inputs = first
        for channels, blocks, stride in _STAGES:
            outputs = int(channels * width)
            stages.append(stage(InvertedResidual, inputs, outputs, blocks, stride, expansion))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.conv2 = nn.Sequential(conv_1x1(inputs, _LAST), nn.BatchNorm2d(_LAST), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(_LAST, num_classes))
        initialise(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        x = self.conv2(self.blocks(self.conv1(x)))
        logits: Tensor = self.classifier(self.avgpool(x).flatten(1))
        return logits
