"""Lessons on pose without a network: five joints in 16 x 16 pixels, on both heads, answers and features made up."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Answers, Calibration, ClassInfo, Lesson, Method, Shapes
from classroomkd.data.skeleton import Skeleton
from classroomkd.functional import simcc, wide
from classroomkd.taps.adapters import BatchNorm
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.task import Pose

__all__ = [
    "FIVE",
    "HEADS",
    "IDS",
    "SIZE",
    "B",
    "K",
    "M",
    "answers_to",
    "at_rest",
    "coding",
    "halved",
    "leaves",
    "lesson",
    "method",
    "people",
    "taught",
]

B, K, M, N = 4, 5, 3, 40
SIZE = (16, 16)
IDS = torch.arange(B) * 7 + 3
FIVE = Skeleton("five", ("nose", "left_hand", "right_hand", "left_foot", "right_foot"), (), (0.079,) * K, (), ())
HEADS = ("simcc", "heatmap")
CHANNELS, CELLS = 4, (4, 4)


def coding(head: str) -> Coding:
    return SimCC(SIZE, K, split=1.0) if head == "simcc" else Heatmap(SIZE, K, stride=2, decoder="argmax")


@cache
def people(n: int, seed: int = 3, all_labelled: bool = False) -> Tensor:
    """Targets ``(n, K, 3)``; about a third of the joints without a label."""
    generator = torch.Generator().manual_seed(seed)
    place = 1 + 13 * torch.rand(n, K, 2, generator=generator)
    v = (torch.arange(n * K) % 3).view(n, K)
    v = v.clamp_min(1) if all_labelled else v
    return torch.cat([place * (v > 0).unsqueeze(-1), v.unsqueeze(-1)], -1).float()


@cache
def answers_to(head: str, target: Tensor, mentors: int) -> Tensor:
    """Mentors who are near the truth where there is one, each a little further away than the one before."""
    found, of = [], coding(head)
    for m in range(mentors):
        generator = torch.Generator().manual_seed(50 + m)
        place = target + (0.3 + 0.2 * m) * torch.randn(target.shape, generator=generator)
        if isinstance(of, SimCC):
            ends = [simcc.gaussian_bins(place[..., i], of.bins[i], of.split, of.sigmas[i]) for i in range(2)]
            clean = torch.cat(ends, -1)
        else:
            assert isinstance(of, Heatmap)
            clean = of.ideal(place)
        found.append(clean + 0.1 * torch.randn(clean.shape, generator=generator))
    return torch.stack(found)


def method(name: str, given: dict[str, Any], head: str, mentors: int = M) -> Method:
    """Built and set up; mentor m has ``CHANNELS + m % 2`` channels."""
    torch.manual_seed(5)
    made = methods.create(name, task="pose", **given)
    features = made.needs.features

    def shape(kind: str, channels: int) -> tuple[int, ...]:
        return (channels, *CELLS) if kind == "map" else (channels,)

    own = {tap: shape(kind, CHANNELS) for tap, kind in features.items()}
    theirs = {tap: tuple(shape(kind, CHANNELS + m % 2) for m in range(mentors)) for tap, kind in features.items()}
    task, last = Pose(coding(head), FIVE), mentors - 1
    shapes = Shapes(task.coding.answer_shape[-1], own, theirs) if features else None
    taught_by = [m == last for m in range(mentors)]
    names, peers = [f"m{m}" for m in range(mentors)], [f"p{number}" for number in range(how_many(made, mentors))]
    made.setup(ClassInfo(task, names, None, shapes, torch.arange(N), people(N), taught_by, peers))
    return made


def lesson(
    of: Method,
    head: str,
    n: int = B,
    mentors: int = M,
    answers: Tensor | None = None,
    order: Tensor | None = None,
    target: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Lesson:
    """What a classroom would gather for this method; the student's answer and features are leaves of their own.

    Args:
        of: the method.
        head: ``simcc`` or ``heatmap``.
        n: samples.
        mentors: how many.
        answers: ``(M, n, K, …)``, in place of the usual ones.
        order: of the mentors.
        target: in place of the usual people.
        dtype: of answers and features.
    """
    code = coding(head)
    target = people(n) if target is None else target
    answers = answers_to(head, target, mentors) if answers is None else answers
    order = torch.arange(mentors) if order is None else order

    def feature(kind: str, channels: int, seed: int) -> Tensor:
        size = (n, channels, *CELLS) if kind == "map" else (n, channels)
        return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)

    taps = of.needs.features.items()
    own = {tap: feature(kind, CHANNELS, 10 + i).requires_grad_() for i, (tap, kind) in enumerate(taps)}
    theirs = {
        tap: tuple(feature(kind, CHANNELS + int(m) % 2, 100 + 10 * i + int(m)) for m in order)
        for i, (tap, kind) in enumerate(taps)
    }
    noise = torch.randn((n, *code.answer_shape), generator=torch.Generator().manual_seed(1))
    student = Answers((0.2 * noise).to(dtype).requires_grad_(), own)
    everybody, asks = Answers(answers[order].to(dtype), theirs), of.mentor_indices
    heard = everybody if asks is None else everybody.of(asks)
    ceiling = torch.linspace(0.6, 0.9, mentors)[order, None].repeat(1, K)

    def peer(number: int) -> Answers:
        seen = {tap: feature(kind, CHANNELS, 60 + 10 * i + number) for i, (tap, kind) in enumerate(taps)}
        return Answers((noise.flip(0) / (2 + number)).to(dtype), seen)

    peers = {f"p{number}": peer(number) for number in range(how_many(of, mentors))}
    averaged = {name: (noise.flip(0) / (5 + i)).to(dtype) for i, name in enumerate(("student", *peers))}
    return Lesson(
        torch.zeros(n, 3, *SIZE),
        target,
        student,
        heard if of.needs.mentors else None,
        Pose(code, FIVE),
        IDS[:n],
        epoch=1.0,
        calibration=Calibration(torch.linspace(0.5, 2.0, mentors)[order], ceiling),
        heads=partial(_head, code, order if asks is None else order[list(asks)]),
        peers=peers,
        teachers=tuple(list(peers)[len(peers) - of.needs.teachers :]),
        averaged=averaged if of.needs.averaged else {},
    )


def how_many(of: Method, mentors: int = M) -> int:
    """Networks beside the student: as many as must be and one that is no teacher, or one for every other mentor; or
    its branches."""
    if of.needs.selves:
        return max(mentors - 1, 1)
    return max(of.needs.peers[0], 1 + of.needs.teachers) if of.needs.takes_peers else of.needs.branches - 1


def _head(of: Coding, places: Tensor, mentor: int, tap: str, value: Tensor) -> Tensor:
    """A fixed linear classifier of each mentor on its map."""
    generator = torch.Generator().manual_seed(900 + int(places[mentor]))
    size = torch.Size(of.answer_shape).numel()
    weight = torch.randn(value.shape[1], size, generator=generator)
    pooled = wide(value).mean((2, 3))  # a lesson in float64 is in float64 here too
    return (pooled @ weight.to(pooled.dtype)).view(len(value), *of.answer_shape).to(value.dtype)


def taught(of: Method, what: Lesson) -> Lesson:
    """The lesson with the method's terms, after going backward."""
    what.conclude(of(what))
    torch.autograd.backward(what.loss)
    return what


def leaves(of: Method, what: Lesson) -> dict[str, Tensor]:
    """What the main optimiser trains of the method, and where its gradient enters the student."""
    own = {id(p) for p in of.meta_parameters()}
    found = {name: p for name, p in of.named_parameters() if id(p) not in own and p.requires_grad}
    return {"the student's answer": what.student.prediction, **what.student.features, **found}


def at_rest(of: Method) -> Method:
    """Without statistics of the batch, which are each rank's own by design."""
    for module in of.modules():
        if isinstance(module, BatchNorm):
            module.eval()
    return of


def halved(what: Lesson, rank: int) -> Lesson:
    """One rank's half of a lesson."""
    n = len(what.target) // 2
    part = slice(rank * n, (rank + 1) * n)

    def own(x: Tensor) -> Tensor:
        return x.detach()[part].clone().requires_grad_()

    student = Answers(own(what.student.prediction), {tap: own(x) for tap, x in what.student.features.items()})
    mentors = None
    if what.mentors is not None:
        features = {tap: tuple(x[part] for x in several) for tap, several in what.mentors.features.items()}
        mentors = Answers(what.mentors.prediction[:, part], features)
    assert what.ids is not None
    peers = {
        name: Answers(own(peer.prediction), {tap: own(x) for tap, x in peer.features.items()})
        for name, peer in what.peers.items()
    }
    return replace(
        what,
        inputs=what.inputs[part],
        target=what.target[part],
        student=student,
        mentors=mentors,
        ids=what.ids[part],
        peers=peers,
        averaged={name: one[part] for name, one in what.averaged.items()},
    )
