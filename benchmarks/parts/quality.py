"""Row 12: what the bank does to accuracy, from a study of the bench of evidence, and that ``exact`` loses nothing.

Accuracy takes hours, so it is measured by that study and only read here. ``exact`` is checked at once: a short
training with the bank, and the same one online with the mentors' answers rounded to the stored precision.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd.bank import LOGITS, Dense, FillOnMissCache, RowStore
from classroomkd.classroom import Classroom
from classroomkd.data import make_views
from classroomkd.recipe import TrainSpec
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.runtime import Runtime
from classroomkd.train.step import StepRunner
from parts.banked import COMMAND, EIGHT, EXACT, ONLINE, Banked, banked
from parts.figures import Figure, Found, Plan
from parts.setting import MEAN, SIDE, STD, images

__all__ = ["accuracy", "losses", "rows"]

SEEDS = 14
CALLED = {ONLINE: "online", EXACT: "exact (online's views, stored)"}
CLASSES, MENTORS = 10, 2


class Rounded(nn.Module):
    """A mentor whose answers went through the stored precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).half().float()


def losses(folder: Path | None, samples: int, epochs: int) -> list[float]:
    """Of every step of a short training: online with rounded answers (``folder`` None), or with ``exact``."""
    part, device = images(samples, CLASSES), torch.device("cpu")
    torch.manual_seed(0)
    student = models.create("resnet8", CLASSES)
    mentors = [Rounded(models.create("resnet8", CLASSES)) for _ in range(MENTORS)]
    space, bank = make_views("crop_flip", view_seed=0, image_size=(SIDE, SIDE)), None
    if folder is not None:
        made = [
            RowStore.open(folder / f"{m}", {"mentor": m}, kind=LOGITS, views=162, samples=samples,
                          codec=Dense((CLASSES,)), write=True)
            for m in range(MENTORS)
        ]  # fmt: skip
        bank = FillOnMissCache([{LOGITS: store} for store in made], part.ids, device)
    room = Classroom(student, mentors, "classroomkd", store=bank)
    context = StepRunner(
        Runtime("cpu", "fp32", threads=1),
        room,
        build_optimizer(room, TrainSpec(lr=0.05)),
        Inputs(MEAN, STD, device, channels_last=False),
        Record(MENTORS, CLASSES, device),
    )
    room.train()
    batches = Batches(part, space, 32, seed=0)
    found = [context.step(batch).loss.item() for epoch in range(epochs) for batch in batches.epoch(epoch)]
    if bank is not None:
        assert 0 < bank.asked[0] <= samples * epochs
    return found


def accuracy(results: Path | None = None) -> Found:
    """What the study of stored answers has found so far: of the newest version that has enough seeds."""
    name, found = "at_least_accuracy_views_8_points", Found({})
    told = [(made, _base(made)) for made in (banked() if results is None else banked(results))]
    told = [(made, base) for made, base in told if made.gap(EIGHT, base).n]
    if not told:
        found.missing[name] = f"takes hours: {COMMAND}"
        return found
    made, base = max(told, key=lambda pair: min(pair[0].gap(EIGHT, pair[1]).n, SEEDS))  # of equals the newest
    gap = made.gap(EIGHT, base)
    if gap.mean is None or gap.low is None or gap.high is None:
        found.missing[name] = f"{gap.n} seeds so far, which have no interval: {COMMAND}"
        return found
    low, middle, high = (100 * value for value in (gap.low, gap.mean, gap.high))
    spread = f"{middle:+.2f} points, 95 % [{low:+.2f}, {high:+.2f}], n = {gap.n} seeds"
    old = f" with {made.aged}" if made.aged else ""
    note = f"less {CALLED[base]}{old}: {spread}, judged on {made.images:,} images"
    if gap.n < SEEDS:
        found.missing[name] = f"not all of {SEEDS} seeds yet; {note}; {COMMAND} goes on"
        return found
    found.figures[name] = Figure([low], note=note, rounds=gap.n)
    return found


def _base(made: Banked) -> str:
    """What eight views are compared with: mentors online, or what is the same to the bit where that has more seeds."""
    return max((ONLINE, EXACT), key=lambda base: made.gap(EIGHT, base).n)


def rows(plan: Plan) -> Found:
    """See the module."""
    samples, epochs = plan.size(256, 64), plan.size(8, 2)
    online, exact = losses(None, samples, epochs), losses(plan.folder / "quality", samples, epochs)
    far = max(abs(a - b) for a, b in zip(online, exact, strict=True))
    note = (
        f"{len(exact)} steps, of which {sum(a == b for a, b in zip(online, exact, strict=True))} identical to the bit"
    )
    found = Found({"exact_loss_difference": Figure([far], note=note)})
    rest = accuracy()
    found.figures.update(rest.figures)
    found.missing.update(rest.missing)
    return found
