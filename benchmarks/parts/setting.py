"""What the rows train: made-up images, a bank with made-up answers, and the engine's own step around them.

Untrained networks and random answers cost what trained ones cost. Shapes: N images, V views, M mentors, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd import methods, models, tasks
from classroomkd.bank import LOGITS, Bank, Dense, EpochCache, RowStore
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews, make_views
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.recipe import TrainSpec
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.runtime import Runtime
from classroomkd.train.step import StepRunner

__all__ = ["SIX", "Feed", "Training", "images", "settle", "slab_bank", "stores", "training"]

SIX = ("resnet32x4", "wrn_40_2", "resnet110", "vgg13", "resnet56", "resnet20")
SIDE, LOG_EVERY = 32, 50
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)


class StandIn(nn.Module):
    """Stands for a mentor whose answers are stored."""

    def forward(self, inputs: Tensor) -> Tensor:
        raise AssertionError("a mentor was asked what the bank holds")


def images(samples: int, classes: int, seed: int = 0) -> Part:
    """Random pixels, every class equally often."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (samples, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    index = torch.arange(samples)
    return Part(MemoryPixels(pixels), index % classes, index, index)


def fixed_views(views: int) -> FixedViews:
    """V fixed views out of crop and flip."""
    return FixedViews(make_views("crop_flip", view_seed=0, image_size=(SIDE, SIDE)), views)


def stores(
    folder: Path, samples: int, classes: int, views: int, filled: Sequence[int] | None = None, mentors: int = len(SIX)
) -> list[dict[str, RowStore]]:
    """Stores of all mentors with random rows in the views ``filled`` (None: all); those that are there are opened."""
    found = []
    generator = torch.Generator().manual_seed(1)
    wanted = range(views) if filled is None else filled
    for m in range(mentors):
        store = RowStore.open(
            folder / f"mentor{m}",
            {"mentor": f"m{m}", "weights": "made up"},
            kind=LOGITS,
            views=views,
            samples=samples,
            codec=Dense((classes,)),
            write=True,
        )
        for view in wanted:
            for start in range(0, samples, 8192):
                positions = torch.arange(start, min(start + 8192, samples))
                if len(store.missing(view, start, start + 1)):
                    values = torch.randn(len(positions), classes, generator=generator)
                    store.write(torch.full_like(positions, view), positions, values)
        store.flush()
        found.append({LOGITS: store})
    return found


def slab_bank(made: list[dict[str, RowStore]], part: Part) -> EpochCache:
    """As a run on a CPU opens it."""
    again = [{LOGITS: RowStore.at(store[LOGITS].folder, mapped=False)} for store in made]
    return EpochCache(again, part.ids, torch.device("cpu"))


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Running statistics that fit the weights, or activations of deep untrained networks overflow in evaluation."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of what is seen
    network.train()(torch.randn(32, 3, SIDE, SIDE))
    for norm in norms:
        norm.momentum = 0.1
    network.eval()


class Feed:
    """Batches as a training draws them, epoch after epoch: ``pixels`` (cropped and flipped), ``target, ids, views``.

    Args:
        part, views, batch: the samples and how they are shown.
        bank: is told which epoch begins.
        length: steps of an epoch; None = all.
    """

    def __init__(
        self, part: Part, views: FixedViews, batch: int, bank: Bank | None = None, length: int | None = None
    ) -> None:
        self.views, self.bank, self.length = views, bank, length
        self.batches = Batches(part, views, batch, seed=0)
        self.epoch = -1
        self._rest: Iterator[dict[str, Tensor]] = iter(())
        self._left = 0

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.length or len(self.batches)

    def open(self) -> None:
        """Begin the next epoch, as the training loop does."""
        self.epoch += 1
        if self.bank is not None:
            self.bank.begin(*(self.views.slot(0, e) for e in (self.epoch, self.epoch + 1)))
        self._rest, self._left = self.batches.epoch(self.epoch), self.steps

    def next(self) -> dict[str, Tensor]:
        """The next batch, opening epochs as they come."""
        if self._left == 0:
            self.open()
        self._left -= 1
        return next(self._rest)


class Training(Feed):
    """The engine's loop cut into single steps: batches, augmentation, lesson, loss, record, update.

    Args:
        context: student, method and, where it is taught, a bank.
        part, views, batch, length: as a feed has them.
    """

    def __init__(self, context: StepRunner, part: Part, views: FixedViews, batch: int, length: int | None) -> None:
        store = context.classroom.mentors.store
        super().__init__(part, views, batch, store if isinstance(store, Bank) else None, length)
        self.context = context
        context.classroom.train()

    def step(self) -> None:
        """One step."""
        self.context.step(self.next())
        if self.context.progress.step % LOG_EVERY == 0:
            self.context.record.flush()

    def some(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self.step()


def training(
    student: str,
    part: Part,
    views: int,
    classes: int,
    *,
    bank: Bank | None = None,
    method: str = "classroomkd",
    batch: int = 64,
    length: int | None = None,
) -> Training:
    """The student alone, or taught by ``method`` from a bank; both start from the same weights."""
    torch.manual_seed(0)
    network = models.create(student, classes)
    network.to(memory_format=torch.channels_last)
    named = [StandIn() for _ in bank.stores] if bank is not None else []
    room = Classroom(
        network,
        named,
        methods.create(method if bank is not None else "none"),
        task=tasks.create("classification"),
        store=bank,
    )
    runtime = Runtime("cpu", "fp32", threads=1)
    record = Record(len(named), classes, runtime.device)
    spec = TrainSpec(lr=1e-3)
    context = StepRunner(runtime, room, build_optimizer(room, spec), Inputs(MEAN, STD, runtime.device), record)
    return Training(context, part, fixed_views(views), batch, length)


def timed(work: Any, clock: Any) -> float:
    """Seconds that a call takes on a clock."""
    start = clock()
    work()
    return float(clock() - start)
