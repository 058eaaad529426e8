"""Adapters: the small trained modules that bring a student's activation into the shape of a mentor's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.errors import UserError, did_you_mean

__all__ = ["AdapterKind", "BatchNorm", "Resize", "adapter"]

AdapterKind = Literal["conv", "bottleneck", "linear"]
_NARROWER = 2  # the bottleneck's factor


def adapter(
    student_shape: Sequence[int], mentor_shape: Sequence[int], kind: AdapterKind = "conv", what: str | None = None
) -> nn.Module:
    """A module from the student's activations to the shape of the mentor's.

    ======================  ============================================  ==========================================
    kind                    maps ``(B, C, H, W)``                         vectors ``(B, C)``
    ======================  ============================================  ==========================================
    ``conv``                1x1 convolution, normalisation, ReLU          linear layer, normalisation, ReLU
    ``bottleneck``          1x1 to C/2, 3x3, 1x1, each normalised, ReLU   linear to C/2, linear, each normalised, ReLU
    ``linear``              1x1 convolution                               linear layer
    ======================  ============================================  ==========================================

    Maps are first brought to the mentor's height and width (:class:`Resize`); where they already have them, this costs
    nothing. The input is cast to the weights' precision.

    Args:
        student_shape, mentor_shape: of one sample, ``(C, H, W)`` or ``(C,)``, both of one kind.
        kind: which module.
        what: how messages call the pair, for instance "tap '@stage:-1' of mentor 'vgg8'".

    Raises:
        UserError: a map paired with a vector, an unknown kind.
    """
    if kind not in get_args(AdapterKind):
        raise UserError(f"unknown adapter '{kind}'{did_you_mean(str(kind), get_args(AdapterKind))}")
    student, mentor = tuple(student_shape), tuple(mentor_shape)
    if len(student) != len(mentor) or len(student) not in (1, 3) or min(*student, *mentor) < 1:
        raise UserError(
            f"{what or 'student and mentor'}: the student's activation of {_size(student)} cannot be brought to the "
            f"mentor's {_size(mentor)}; both must be maps (channels x height x width) or both vectors, so choose other "
            "taps, or read both pooled"
        )
    resize = [Resize(mentor[1:])] if student[1:] != mentor[1:] else []
    return _Adapter(*resize, *_layers(kind, student[0], mentor[0], maps=len(student) == 3))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) if len(shape) != 1 else f"a vector of {shape[0]}"


def _layers(kind: AdapterKind, inputs: int, outputs: int, maps: bool) -> list[nn.Module]:
    """Convolutions of maps, linear layers of vectors; but for ``linear`` each is normalised and rectified."""

    def weights(before: int, after: int, window: int = 1, bias: bool = True) -> nn.Module:
        if maps:
            return nn.Conv2d(before, after, window, padding=window // 2, bias=bias)
        return nn.Linear(before, after, bias=bias)

    if kind == "linear":
        return [weights(inputs, outputs)]
    steps = [(inputs, outputs, 1)]
    if kind == "bottleneck":
        inside = max(1, inputs // _NARROWER)
        steps = [(inputs, inside, 1), *[(inside, inside, 3)] * maps, (inside, outputs, 1)]
    layers: list[nn.Module] = []
    for before, after, window in steps:
        layers += [weights(before, after, window, bias=kind == "conv"), BatchNorm(after), nn.ReLU()]
    return layers


class _Adapter(nn.Sequential):
    """A sequence whose input is cast to the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, …)`` of the student to ``(B, …)`` of the mentor's shape."""
        output: Tensor = super().forward(x.to(next(self.parameters()).dtype))  # type: ignore[no-untyped-call]
        return output


class Resize(nn.Module):
    """``(B, C, H, W)`` to a fixed height and width: larger sides are averaged over, smaller ones interpolated.

    Averaging (adaptive average pooling) comes first; interpolation is bilinear with pixel centres kept.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, height, width)``."""
        smaller = min(x.shape[2], self.height), min(x.shape[3], self.width)
        if smaller != tuple(x.shape[2:]):
            x = F.adaptive_avg_pool2d(x, smaller)
        if smaller != (self.height, self.width):
            x = F.interpolate(x, size=(self.height, self.width), mode="bilinear", align_corners=False)
        return x

    def extra_repr(self) -> str:
        """The size, for printing."""
        return f"{self.height}x{self.width}"


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of maps and vectors that also takes a single value per channel.

    One vector, or one 1x1 map, has no variance to normalise by (torch refuses it in training): it is normalised with
    the running statistics, which it leaves as they are. Everything else is torch's.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() in (2, 4), input.shape

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C)`` or ``(B, C, H, W)`` to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)
