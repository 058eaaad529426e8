"""What several families share: the plain convolutions and the initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["conv_1x1", "conv_3x3", "initialise", "stage"]


def conv_3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution without bias: ``(B, inputs, H, W) -> (B, outputs, ceil(H/stride), ceil(W/stride))``."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=False)


def conv_1x1(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias: ``(B, inputs, H, W) -> (B, outputs, ceil(H/stride), ceil(W/stride))``."""
    return nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False)


def stage(
    block: Callable[..., nn.Module], inputs: int, outputs: int, count: int, stride: int, *options: Any
) -> nn.Sequential:
    """``count`` blocks in a row, the first of which changes width and stride: ``block(inputs, outputs, stride)``."""
    rest = [block(outputs, outputs, 1, *options) for _ in range(count - 1)]  # made first: published seeds count on it
    return nn.Sequential(block(inputs, outputs, stride, *options), *rest)


def initialise(module: nn.Module, *, linear_std: float | None = None) -> None:
    """The benchmarks' initial weights, in place: Kaiming's normal (fan out) for convolutions, zero biases.

    Linear layers keep torch's default, or get normal weights of ``linear_std`` and zero biases. Normalisations keep
    torch's ones and zeros. Families that do not call this keep torch's default (Kaiming's uniform) throughout.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear) and linear_std is not None:
            nn.init.normal_(layer.weight, 0.0, linear_std)
            nn.init.zeros_(layer.bias)
