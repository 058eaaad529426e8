"""Our side of every comparison: one whole training step of this package, mentors online or their answers stored.

A step is what a training does with a batch: the batch to channels-last, everybody's answers, the method's terms, the
record of who taught what, backward, update. Left out on both sides: loading and augmenting, which no peer shares.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd import methods, models, tasks
from classroomkd.classroom import Classroom, Mentor, PlainContext
from classroomkd.classroom.lesson import Lesson
from classroomkd.engine.record import Record
from classroomkd.models.folding import fold_batch_norms
from peers.rounds import Step

__all__ = ["CLASSES", "SIX", "Problem", "our_step", "problem"]

SIX = ("resnet32x4", "wrn_40_2", "resnet110", "vgg13", "resnet56", "resnet20")  # specs: the six mentors
CLASSES, VIEWS, SAMPLES = 100, 8, 2048
LAST = torch.channels_last


@dataclass(frozen=True)
class Problem:
    """Networks with weights, and a batch: what both sides are given. Steps work on copies of the networks."""

    student: nn.Module
    mentors: Sequence[nn.Module]
    names: Sequence[str]
    pixels: Tensor  # (B, 3, 32, 32), plain layout
    target: Tensor  # (B,)


def problem(student: str, mentors: Sequence[str], batch: int) -> Problem:
    """Untrained networks of ours by name (what they say does not change what it costs) and a made-up batch."""
    torch.manual_seed(0)
    networks = [models.create(name, CLASSES) for name in (student, *mentors)]
    names = [f"{name}-{i}" for i, name in enumerate(mentors)]
    for network in networks[1:]:
        _settle(network)
    pixels, target = torch.randn(batch, 3, 32, 32), torch.randint(CLASSES, (batch,))
    return Problem(networks[0], networks[1:], names, pixels, target)


@torch.no_grad()
def _settle(network: nn.Module) -> None:
    """Running statistics that fit the weights, or activations of deep untrained networks overflow in evaluation."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of what is seen
    network.train()(torch.randn(32, 3, 32, 32))
    for norm in norms:
        norm.momentum = 0.1
    network.eval()


class Stored:
    """Answers in memory as the bank keeps them, fp16 by view and sample; the batch's own rows are the true ones."""

    shapes: Mapping[str, tuple[tuple[int, ...], ...]] = {}

    def __init__(self, answers_MBC: Tensor, ids: Tensor, views: Tensor) -> None:
        self.rows = torch.randn(VIEWS * SAMPLES, *answers_MBC.transpose(0, 1).shape[1:]).half()
        self.rows[views * SAMPLES + ids] = answers_MBC.transpose(0, 1).half()

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, C)``."""
        return self.rows.index_select(0, views * SAMPLES + ids).transpose(0, 1).float()

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError(tap)


class InPrecision(nn.Module):
    """A network computing in another precision: floats in, floats out."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, pixels: Tensor) -> Tensor:
        said: Tensor = self.network(pixels.to(self.dtype))
        return said.float()


def quick(network: nn.Module, precision: str) -> nn.Module:
    """A mentor as we run it: evaluation, folded, channels-last, and bf16 where asked."""
    folded = fold_batch_norms(copy.deepcopy(network), torch.randn(2, 3, 32, 32))[0].to(memory_format=LAST)
    return InPrecision(folded, torch.bfloat16) if precision == "bf16" else folded


class HalfForward(PlainContext):
    """The student's forward and the loss under bf16 autocast, as the engine's bf16-mixed."""

    def lesson(self, batch: Mapping[str, Any]) -> Lesson:
        with torch.autocast("cpu", torch.bfloat16):
            return super().lesson(batch)


def our_step(
    given: Problem,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    mentors: bool = True,
    warm: bool = False,
    student_precision: str = "fp32",
    mentor_precision: str = "fp32",
) -> Step:
    """One step of this package on a problem; calling it gives the loss as a tensor."""
    student = copy.deepcopy(given.student).to(memory_format=LAST)
    named = zip(given.mentors, given.names, strict=True) if mentors else ()
    teachers = [Mentor(quick(network, mentor_precision), name) for network, name in named]
    room = Classroom(student, teachers, methods.create(method, **(options or {})), task=tasks.create("classification"))
    optimizer = torch.optim.SGD(room.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    context = (PlainContext if student_precision == "fp32" else HalfForward)(room, optimizer)
    record = Record(len(teachers), CLASSES, torch.device("cpu"))
    batch = {
        "target": given.target,
        "ids": torch.randperm(SAMPLES)[: len(given.pixels)],
        "views": torch.randint(VIEWS, (len(given.pixels),)),
    }
    if warm:
        answers = room.mentors.ask(given.pixels)
        assert answers is not None
        room.mentors.store = Stored(answers.prediction, batch["ids"], batch["views"])

    def step() -> Tensor:
        lesson = room.method.step(context, {**batch, "inputs": given.pixels.contiguous(memory_format=LAST)})
        record.add(lesson)
        return lesson.loss.detach()

    return step
