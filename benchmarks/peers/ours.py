"""Our side of every comparison: one whole training step of this package, mentors online or their answers stored.

A step is what a training does: the batch drawn, cropped, flipped and normalised, everybody's answers, the method's
terms, the record of who taught what, backward, update. A peer's loop takes its batches from the same code
(:class:`Loader`), so drawing them costs both sides the same. Stored answers are those of a bank on disk as a run opens
it, and a step bears its share of reading an epoch's slab.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from parts.setting import MEAN, SIX, STD, Feed, fixed_views, images, settle, slab_bank, stores
from torch import Tensor, nn

from classroomkd import methods, models, tasks
from classroomkd.bank import LOGITS, Bank, EpochCache
from classroomkd.classroom import Classroom, Mentor, PlainContext
from classroomkd.classroom.lesson import Lesson
from classroomkd.data.images import Part
from classroomkd.models.folding import fold
from classroomkd.train.inputs import Inputs
from classroomkd.train.meter import Record
from peers.rounds import Owing, Step

__all__ = ["CLASSES", "SIX", "Loader", "Problem", "our_step", "problem"]

CLASSES, VIEWS = 100, 2
LAST, CPU = torch.channels_last, torch.device("cpu")


@dataclass(frozen=True)
class Problem:
    """Networks with weights, and images: what both sides are given. Steps work on copies of the networks."""

    student: nn.Module
    mentors: Sequence[nn.Module]
    names: Sequence[str]
    part: Part
    batch: int
    folder: Path  # for stored answers

    def feed(self, bank: Bank | None = None) -> Feed:
        """Its batches from the first on, the same ones for everybody."""
        return Feed(self.part, fixed_views(VIEWS), self.batch, bank)


def problem(student: str, mentors: Sequence[str], args: argparse.Namespace) -> Problem:
    """Untrained networks of ours by name (what they say does not change what it costs) and made-up images."""
    torch.manual_seed(0)
    networks = [models.create(name, CLASSES) for name in (student, *mentors)]
    names = [f"{name}-{i}" for i, name in enumerate(mentors)]
    for network in networks[1:]:
        settle(network)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    return Problem(networks[0], networks[1:], names, images(args.samples, CLASSES), args.batch, folder)


class Loader:
    """Where a peer's loop takes its batches from, one an epoch: inputs (B, 3, 32, 32) in plain layout, target (B,)."""

    def __init__(self, given: Problem) -> None:
        self.feed, self.inputs = given.feed(), Inputs(MEAN, STD, CPU, channels_last=False)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.next()

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        batch = self.feed.next()
        return self.inputs(batch["pixels"]), batch["target"]


def stored(given: Problem, answers_MBC: Tensor, ids: Tensor, views: Tensor) -> EpochCache:
    """A bank of made-up answers as a run opens it; those of these samples and views are the true ones."""
    made = stores(given.folder, len(given.part), CLASSES, VIEWS, mentors=len(answers_MBC))
    for store, said in zip(made, answers_MBC, strict=True):
        store[LOGITS].forget(views, ids)
        store[LOGITS].write(views, ids, said)
        store[LOGITS].flush()
    bank = slab_bank(made, given.part)
    for store in made:
        store[LOGITS].close()
    return bank


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
    folded = fold(copy.deepcopy(network), torch.randn(2, 3, 32, 32)).module.to(memory_format=LAST)
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
    """One step of this package on a problem; calling it gives the loss as a tensor.

    A training on one CPU without the engine around it, which needs packages that a peer's environment may lack.
    """
    student = copy.deepcopy(given.student).to(memory_format=LAST)
    named = zip(given.mentors, given.names, strict=True) if mentors else ()
    teachers = [Mentor(quick(network, mentor_precision), name) for network, name in named]
    room = Classroom(student, teachers, methods.create(method, **(options or {})), task=tasks.create("classification"))
    room.progress = 0.0  # a schedule's factor costs the same at any time
    optimizer = torch.optim.SGD(room.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    context = (PlainContext if student_precision == "fp32" else HalfForward)(room, optimizer)
    record, inputs = Record(len(teachers), CLASSES, CPU), Inputs(MEAN, STD, CPU)
    bank = None
    if warm:
        first = given.feed().next()
        answers = room.mentors.ask(inputs(first["pixels"]))
        assert answers is not None
        bank = room.mentors.store = stored(given, answers.prediction, first["ids"], first["views"])
    feed = given.feed(bank)

    def step() -> Tensor:
        batch = feed.next()
        lesson = room.method.step(context, {**batch, "inputs": inputs(batch["pixels"])})
        record.add(lesson)
        return lesson.loss.detach()

    return Owing(step, feed.open, feed.steps) if warm else step
