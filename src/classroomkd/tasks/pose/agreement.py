"""Answers about people without joints, scored by the places on which the mentors agree.

A joint is where it is agreed to be when its OKS is at least 1/2, as for :meth:`Pose.mistaken`. That is no PCK: nobody
has said where the joint is.

Shapes: M mentors, N persons, K joints; answers ``(N, K, …)``, targets ``(N, K, 3)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from classroomkd.tasks.pose.task import Pose
from classroomkd.train.scoring import Score

__all__ = ["DISTANCE", "against_mentors", "agreed", "apart", "mean_pose", "pairs_apart", "score"]

DISTANCE = "mean distance in the crop's longer side"
_AT_ONCE = 1024  # persons


@torch.no_grad()
def agreed(task: Pose, answers_MN: Tensor) -> Tensor:
    """Where the mentors agree that joints are, of ``(M, N, K, …)``; a joint that nobody knows has no label, a person of
    whom nobody knows any stays marked as one without joints.
    """
    pieces = []
    for answers in torch.split(answers_MN, _AT_ONCE, 1):
        target = task.agreed(answers, task.no_target(answers[0]))
        somebody = (target[..., 2] > 0).any(-1).view(-1, 1, 1)
        pieces.append(torch.where(somebody, target.clamp_min(0), target))
    return torch.cat(pieces)


@torch.no_grad()
def score(task: Pose, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """The share of joints that are where they are agreed to be, also by joint, and how far they are from there on
    average, as a share of the input's longer side; only joints that both know.

    Args:
        task: of the student.
        batches: answers and agreed targets.
    """
    joints = task.coding.joints
    near, total, count = torch.zeros(joints), torch.zeros(()), torch.zeros(joints)
    far, persons = torch.zeros(()), 0
    for answer, target in batches:
        counts = task.mask(target) & ~task.coding.state(answer)[0]
        near += (counts & ~task.mistaken(answer, target)).sum(0).cpu()
        count += counts.sum(0).cpu()
        total += task.supervised(answer, target).where(counts, 0.0).sum().cpu()
        apart = (task.coding.decode(answer)[..., :2] - target[..., :2]).norm(dim=-1)
        far += apart.where(counts, 0.0).sum().cpu()
        persons += len(target)
    every = count.sum().clamp_min(1)
    shares = [float(a / n) if n else None for a, n in zip(near, count, strict=True)]
    value = float(near.sum() / every) if bool(count.any()) else float("nan")
    more = {DISTANCE: float(far / every) / max(task.coding.size)} if bool(count.any()) else {}
    return Score(value, float(total / every), shares, persons, more)


@torch.no_grad()
def against_mentors(task: Pose, answers: Tensor, answers_MN: Tensor, names: Sequence[str]) -> Mapping[str, float]:
    """The share of joints that a student has where each mentor has them."""
    found = {}
    for name, its in zip(names, answers_MN, strict=True):
        pairs = zip(*(torch.split(x, _AT_ONCE) for x in (answers, agreed(task, its.unsqueeze(0)))), strict=True)
        found[f"agreement with {name}"] = score(task, [(a, t.to(a.device)) for a, t in pairs]).value
    return found


@torch.no_grad()
def apart(task: Pose, answers_MN: Tensor) -> Tensor:
    """How far the mentors are from the places that they agree on, ``(N,)`` in [0, 1]: 1 less the mean OKS of all joints
    that a mentor knows; NaN where nobody knows any.
    """
    target = task.agreed(answers_MN, task.no_target(answers_MN[0]))
    unknown, broken = task.coding.state(answers_MN)
    near = task.coding.log_oks(answers_MN, target, task.skeleton.sigmas).exp()
    return 1 - near.masked_fill(unknown | broken, torch.nan).transpose(0, 1).flatten(1).nanmean(1)


@torch.no_grad()
def pairs_apart(task: Pose, answers_MN: Tensor) -> Tensor:
    """The share of the pairs of networks, and of the joints, whose places are so far apart that the OKS of one by the
    other is below 1/2, ``(N,)``; M > 1. A joint whose answer is not finite is apart from everybody's.
    """
    networks = len(answers_MN)
    places = [task.coding.decode(answers) for answers in answers_MN]
    near = [task.coding.log_oks(answers_MN, place, task.skeleton.sigmas) >= math.log(0.5) for place in places]
    differ = ~torch.stack(near).flatten(0, 1)  # each pair twice, and each network with itself
    return differ.to(answers_MN.dtype).sum(0).mean(-1) / (networks * (networks - 1))


def mean_pose(target: Tensor) -> Tensor:
    """The mean place of each joint over the persons ``(N, K, 3)`` who have it, for each of them."""
    seen = (target[..., 2:] > 0).to(target.dtype)
    mean = (target[..., :2] * seen).sum(0) / seen.sum(0).clamp_min(1)
    return torch.cat([mean, torch.ones_like(mean[:, :1])], -1).expand(len(target), -1, -1)
