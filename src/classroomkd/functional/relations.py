"""What features say about each other: RKD, attention transfer and similarity preserving.

Shapes: M teachers, B samples, D feature dimensions; maps are ``(B, channels, H, W)`` and may differ in channels between
student and teacher. A function ``..._by_mentor`` compares one student with M teachers at once. Gradients flow to the
student only. Half precisions widen and autocast is switched off: a difference of two nearly equal products does not
survive either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional.divergence import wide

__all__ = [
    "angles",
    "attention_transfer",
    "attention_transfer_by_mentor",
    "distances",
    "rkd",
    "rkd_angle",
    "rkd_angle_by_mentor",
    "rkd_distance",
    "rkd_distance_by_mentor",
    "similarity_preserving",
    "similarity_preserving_by_mentor",
]

_LEAST = 1e-12  # of a squared distance; below it two samples are at the same place


def _unit(x: Tensor) -> Tensor:
    """Vectors along the last dimension brought to length 1; a zero vector stays zero and gets no gradient."""
    square = (x * x).sum(-1, keepdim=True)
    there = square > 0
    return torch.where(there, x * torch.where(there, square, 1.0).rsqrt(), 0.0)


def distances(features: Tensor) -> Tensor:
    """Euclidean distances between samples ``(B, ...)`` divided by their mean over pairs: ``(B, B)``."""
    return _distances([features]).squeeze(0)


def angles(features: Tensor) -> Tensor:
    """Cosines of the angles between samples ``(B, ...)``, seen from each: ``[i, j, k]`` at corner i, ``(B, B, B)``."""
    return _angles([features]).squeeze(0)


def _distances(networks: Sequence[Tensor]) -> Tensor:
    """:func:`distances` by network, ``(M, B, B)``: only the products know how wide a network is."""
    with torch.autocast(networks[0].device.type, enabled=False):
        flat = [wide(x).flatten(1) for x in networks]
        flat = [x - x.detach().mean(0) for x in flat]  # distances do not see it, rounding does
        products = torch.stack([x @ x.T for x in flat])
        square = products.diagonal(dim1=1, dim2=2)
        apart = (square.unsqueeze(2) + square.unsqueeze(1) - 2 * products).clamp_min(_LEAST).sqrt()
        count = len(flat[0])
        self_pair = torch.eye(count, dtype=torch.bool, device=apart.device)
        apart = apart.masked_fill(self_pair, 0.0)
        mean = apart.sum((1, 2), keepdim=True) / max(count * (count - 1), 1)
        return apart / mean.clamp_min(_LEAST)


def _angles(networks: Sequence[Tensor]) -> Tensor:
    """:func:`angles` by network, ``(M, B, B, B)``: only the products know how wide a network is."""
    with torch.autocast(networks[0].device.type, enabled=False):
        flat = (wide(x).flatten(1) for x in networks)
        apart = (x.unsqueeze(0) - x.unsqueeze(1) for x in flat)  # (B, B, D), one network's at a time
        products = torch.stack([x @ x.transpose(1, 2) for x in apart])
        square = products.diagonal(dim1=2, dim2=3)  # two samples at one place have no direction, and no gradient
        there = square > 0
        scale = torch.where(there, torch.where(there, square, 1.0).rsqrt(), 0.0)
        return products * scale.unsqueeze(3) * scale.unsqueeze(2)


def _huber(relation: Callable[[Sequence[Tensor]], Tensor], student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    ours = relation([student])
    with torch.no_grad():
        goals = relation(teachers).to(ours.dtype)
    return F.smooth_l1_loss(ours.expand_as(goals), goals, reduction="none").flatten(1).mean(1)


def rkd_distance_by_mentor(student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """:func:`rkd_distance` to each of M teachers, whose widths may differ: ``(M,)``."""
    return _huber(_distances, student, teachers)


def rkd_angle_by_mentor(student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """:func:`rkd_angle` to each of M teachers, whose widths may differ: ``(M,)``."""
    return _huber(_angles, student, teachers)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The distance part of :func:`rkd`: the mean Huber loss (at 1) between :func:`distances`."""
    return rkd_distance_by_mentor(student, [teacher]).squeeze(0)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """The angle part of :func:`rkd`: the mean Huber loss (at 1) between :func:`angles`."""
    return rkd_angle_by_mentor(student, [teacher]).squeeze(0)


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


def _power(x: Tensor, size: tuple[int, int], p: float) -> Tensor:
    x = _pooled(wide(x), size)
    power = x.pow(p) if float(p).is_integer() else x.abs().pow(p)
    return power.mean(1).flatten(1)


def attention_transfer_by_mentor(student_map: Tensor, teacher_maps: Sequence[Tensor], p: float = 2) -> Tensor:
    """:func:`attention_transfer` to each of M teachers, whose channels and sizes may differ: ``(M,)``."""
    if p < 1:
        raise UserError(f"attention with p = {p} has no gradient at an activation of 0: give p of 1 or more")
    height, width = student_map.shape[2:]
    sizes = [(min(height, one.shape[2]), min(width, one.shape[3])) for one in teacher_maps]
    far: dict[int, Tensor] = {}
    for size in dict.fromkeys(sizes):
        places = [m for m, one in enumerate(sizes) if one == size]
        own = _unit(_power(student_map, size, p))  # (B, places of the map)
        theirs = _unit(torch.stack([_power(teacher_maps[m].detach(), size, p) for m in places]))
        far |= zip(places, (own - theirs).square().mean((1, 2)).unbind(0), strict=True)
    return torch.stack([far[m] for m in range(len(sizes))])


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
    return attention_transfer_by_mentor(student_map, [teacher_map], p).squeeze(0)


def similarity_preserving(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity preserving: samples that are alike to the teacher should be alike to the student.

    The products of all pairs of flattened features, each row brought to length 1, are compared: ‖G_s - G_t‖² / B².

    Args:
        student_features: ``(B, ...)``, maps or vectors.
        teacher_features: ``(B, ...)``, any other shape.

    Returns:
        A scalar. Source: Tung, Mori 2019 (arXiv 1907.09682).
    """
    return similarity_preserving_by_mentor(student_features, [teacher_features]).squeeze(0)


def similarity_preserving_by_mentor(student_features: Tensor, teacher_features: Sequence[Tensor]) -> Tensor:
    """:func:`similarity_preserving` to each of M teachers, whose shapes may differ: ``(M,)``."""

    def rows(networks: Sequence[Tensor]) -> Tensor:
        flat = (wide(x).flatten(1) for x in networks)
        return _unit(torch.stack([x @ x.T for x in flat]))

    with torch.autocast(student_features.device.type, enabled=False):
        far = rows([student_features]) - rows([one.detach() for one in teacher_features])
        return far.square().mean((1, 2))
