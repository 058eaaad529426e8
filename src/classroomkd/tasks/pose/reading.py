"""Pose networks asked, read and summed up batch by batch: a part's answers, a megabyte a person, never stand in memory
together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from classroomkd.data.skeleton import Skeleton
from classroomkd.tasks.pose.coding import Coding
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import each_answer

if TYPE_CHECKING:
    from classroomkd.classroom import Task
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views

__all__ = ["read_answers", "sum_up"]


def read_answers(
    network: nn.Module,
    part: Part,
    inputs: Inputs,
    coding: Coding,
    skeleton: Skeleton,
    *,
    flip: bool,
    batch_size: int = 256,
    views: Views | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Answers ``(B, K, …)`` and targets ``(B, K, 3)`` of a part, with ``flip`` the mean with those of its mirror image.

    Args:
        network: answers in ``coding`` about the joints of ``skeleton``.
        part: N persons, in batches of ``batch_size``.
        inputs: makes inputs of pixels.
        coding: how answers are averaged.
        skeleton: which joints swap in a mirror.
        flip: the flip test.
        batch_size: B.
        views: what a crop without augmentation looks like; None: as it is stored.
    """
    for answer, mirrored, target in each_answer(network, part, inputs, batch_size, views, mirror=flip):
        if mirrored is not None:
            answer = coding.mean([answer, coding.flipped(mirrored, skeleton.swap)])
        yield answer, target


@torch.no_grad()
def sum_up(batches: Iterable[tuple[Tensor, Tensor]], coding: Coding, task: Task) -> tuple[Tensor, float, list[bool]]:
    """Decoded joints ``(N, K, 3)``, the mean supervised loss over the joints that have one, and which joints ``(K,)``
    the answers know: one that is ``-inf`` throughout is a joint that a mentor does not have, and costs nothing."""
    decoded: list[Tensor] = []
    knows: Tensor | None = None
    total: Tensor | float = 0.0
    count: Tensor | int = 0
    for answer, target in batches:
        decoded.append(coding.decode(answer))
        unknown = coding.state(answer)[0]
        total = total + task.supervised(answer, target).masked_fill(unknown, 0.0).sum()
        count = count + (task.mask(target) & ~unknown).sum()
        some = (~unknown).any(0)
        knows = some if knows is None else knows | some
    assert knows is not None
    return torch.cat(decoded), float(total) / max(int(count), 1), knows.tolist()
