"""What features say about each other: RKD, attention transfer and similarity preserving.

Shapes: B samples, D feature dimensions; maps are ``(B, channels, H, W)`` and may differ in channels between student and
teacher. Gradients flow to the student only. Half precisions widen and autocast is switched off: a difference of two
nearly equal products does not survive either.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional.divergence import wide

__all__ = [
    "angles",
    "attention_transfer",
    "distances",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
]

_LEAST = 1e-12  # of a squared distance; below it two samples are at the same place


def _unit(x: Tensor) -> Tensor:
    """Vectors along the last dimension brought to length 1; a zero vector stays zero and gets no gradient."""
    square = (x * x).sum(-1, keepdim=True)
    there = square > 0
    return torch.where(there, x * torch.where(there, square, 1.0).rsqrt(), 0.0)


def distances(features: Tensor) -> Tensor:
    """Euclidean distances between samples ``(B, ...)`` divided by their mean over pairs: ``(B, B)``."""
    with torch.autocast(features.device.type, enabled=False):
        x: Tensor = wide(features).flatten(1)
        x = x - x.detach().mean(0)  # distances do not see it, rounding does
        square = (x * x).sum(1)
        apart = (square[:, None] + square - 2 * x @ x.T).clamp_min(_LEAST).sqrt()
        self_pair = torch.eye(len(x), dtype=torch.bool, device=x.device)
        apart = apart.masked_fill(self_pair, 0.0)
        pairs = max(len(x) * (len(x) - 1), 1)
        return apart / (apart.sum() / pairs).clamp_min(_LEAST)


def angles(features: Tensor) -> Tensor:
    """Cosines of the angles between samples ``(B, ...)``, seen from each: ``[i, j, k]`` at corner i, ``(B, B, B)``."""
    with torch.autocast(features.device.type, enabled=False):
        x = wide(features).flatten(1)
        direction = _unit(x.unsqueeze(0) - x.unsqueeze(1))
        return direction @ direction.transpose(1, 2)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The distance part of :func:`rkd`: the mean Huber loss (at 1) between :func:`distances`."""
    with torch.no_grad():
        goal = distances(teacher)
    return F.smooth_l1_loss(distances(student), goal)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """The angle part of :func:`rkd`: the mean Huber loss (at 1) between :func:`angles`."""
    with torch.no_grad():
        goal = angles(teacher)
    return F.smooth_l1_loss(angles(student), goal)


def rkd(student: Tensor, teacher: Tensor, w_distance: float = 25.0, w_angle: float = 50.0) -> Tensor:
    """Relational KD: distances and angles between the samples of a batch should agree.

    Args:
        student: ``(B, D)`` features; further dimensions are flattened.
        teacher: ``(B, D')``, another width is fine.
        w_distance: factor of the distance part.
        w_angle: factor of the angle part, which costs B² · D + B³ numbers of memory.

    Returns:
        A scalar that does not change when either side is moved, turned or scaled; 0 for a batch of one.
        Source: Park et al. 2019 (arXiv 1904.05068).
    """
    return w_distance * rkd_distance(student, teacher) + w_angle * rkd_angle(student, teacher)


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = x.shape[2:]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:  # the same values, and deterministic on every device
        return F.avg_pool2d(x, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(x, size)


def _attention(x: Tensor, p: float) -> Tensor:
    power = x.pow(p) if float(p).is_integer() else x.abs().pow(p)
    return _unit(power.mean(1).flatten(1))


def attention_transfer(student_map: Tensor, teacher_map: Tensor, p: float = 2) -> Tensor:
    """Attention transfer: where the student looks should be where the teacher looks.

    A map's attention is the mean over channels of its p-th power, flattened and brought to length 1 per sample.

    Args:
        student_map: ``(B, channels, H, W)``.
        teacher_map: ``(B, channels', H', W')``; of two sizes the larger is average-pooled to the smaller first.
        p: the power, >= 1. As in the released code an odd whole power keeps the sign of a negative activation; a
            broken power is of the absolute value.

    Returns:
        A scalar, the mean squared difference of attentions over samples and places. Source: Zagoruyko, Komodakis 2017
        (arXiv 1612.03928).

    Raises:
        UserError: p below 1.
    """
    if p < 1:
        raise UserError(f"attention with p = {p} has no gradient at an activation of 0: give p of 1 or more")
    student, teacher = wide(student_map), wide(teacher_map.detach())
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return (_attention(_pooled(student, size), p) - _attention(_pooled(teacher, size), p)).square().mean()


def similarity_preserving(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity preserving: samples that are alike to the teacher should be alike to the student.

    The products of all pairs of flattened features, each row brought to length 1, are compared: ‖G_s - G_t‖² / B².

    Args:
        student_features: ``(B, ...)``, maps or vectors.
        teacher_features: ``(B, ...)``, any other shape.

    Returns:
        A scalar. Source: Tung, Mori 2019 (arXiv 1907.09682).
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = wide(student_features).flatten(1), wide(teacher_features.detach()).flatten(1)
        return (_unit(student @ student.T) - _unit(teacher @ teacher.T)).square().mean()
