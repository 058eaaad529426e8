"""Small networks with a class for each cell of a grid of a quarter of the picture's size."""

from __future__ import annotations

from torch import Tensor, nn

from figure_parts.spec import WIDTHS

__all__ = ["STRIDE", "SegNet", "build"]

STRIDE = 4  # pixels of a cell


class SegNet(nn.Module):
    """Pixels ``(B, C, H, W)`` to logits ``(B, classes, H/4, W/4)``."""

    def __init__(self, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = _block(channels, width, 2)
        self.stage1 = _block(width, 2 * width, 2)
        self.stage2 = _block(2 * width, 2 * width, 1, dilation=2)
        self.stage3 = _block(2 * width, 2 * width, 1, dilation=3)
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.stage3(self.stage2(self.stage1(self.stem(pixels)))))
        return logits


def _block(inputs: int, outputs: int, stride: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def build(name: str, classes: int, channels: int) -> SegNet:
    """A network by name."""
    return SegNet(WIDTHS[name], classes, channels)
