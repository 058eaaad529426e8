"""How loud the mentors are: their gradient on the student against that of plain supervised learning, on one batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.bank import FillOnMissCache
from classroomkd.classroom import Batch, Method, Terms
from classroomkd.classroom.schedule import Constant
from classroomkd.classroom.trainees import is_own_loss
from classroomkd.train.step_cost import rehearsed, undone

if TYPE_CHECKING:
    from classroomkd.train.step import StepRunner

__all__ = ["LOUD", "Scale", "loud", "measure"]

LOUD = 10.0  # times plain supervised learning; above it a run says so


@dataclass(frozen=True)
class Scale:
    """Norms of gradients on the student's weights, as ratios; NaN where one of them is not finite or the other is 0.

    Attributes:
        ratio: mentors' terms with their factors, over the plain supervised loss.
        own: the same over the method's own supervised term, whatever that is weighted by.
        unscheduled: ``ratio`` with all schedules at 1; the same number where none holds the mentors back.
    """

    ratio: float
    own: float
    unscheduled: float

    def entry(self) -> dict[str, float]:
        """What a student's entry in ``summary.json`` holds: ``gradient_ratio`` and, where it is another number,
        ``gradient_ratio_unscheduled``."""
        ratios = {"gradient_ratio": self.ratio}
        if self.unscheduled != self.ratio:
            ratios["gradient_ratio_unscheduled"] = self.unscheduled
        return {name: round(value, 4) for name, value in ratios.items() if math.isfinite(value)}


def loud(scale: Scale | None) -> str:
    """What a user should read about it; empty unless the mentors are louder than :data:`LOUD`."""
    if scale is None or not scale.ratio > LOUD:
        return ""
    return (
        f"at the start the mentors' gradient is {scale.ratio:.0f} times that of the labels alone (more than {LOUD:g}), "
        "so another learning rate may be right and the labels hardly count. Try a smaller weight of its mentors' "
        "terms, a lower temperature, strength: matched, or a schedule that begins softly (docs/recipes.md)"
    )


def measure(context: StepRunner, batch: Batch) -> Scale | None:
    """Compare the two gradients on a batch with the student as it is, and put everything back.

    Weights, buffers, generators, counters and stored answers stay what they are; the student is asked outside DDP and
    in full precision. Over ranks it is the gradient of everybody's samples together. A method's own parameters
    (projectors) are not counted.

    Args:
        context: of the steps; its mentors must be trained, or the figure means nothing.
        batch: as the steps take it.

    Returns:
        None for a method without mentors.
    """
    classroom, runtime = context.classroom, context.runtime
    method = classroom.method
    if method.needs.mentors == 0 or not len(classroom.mentors):
        return None
    store = classroom.mentors.store
    if isinstance(store, FillOnMissCache):
        store = rehearsed(store, stored=None)
    weights = [p for p in classroom.student.parameters() if p.requires_grad]

    def norm(loss: Tensor) -> float:
        if not loss.requires_grad:
            return 0.0
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, weights, strict=True)
        flat = torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs])
        return float((runtime.reduce(flat) / runtime.world).norm())

    with undone(context), classroom.rehearsal(method, store):
        context.train()
        lesson = context.aside(batch)
        terms = method(lesson)
        task, prediction = lesson.task, lesson.student.prediction
        plain = norm(lesson.mean(task.supervised(prediction, lesson.target), task.mask(lesson.target)))
        mine = norm(_weighed(terms, ["supervised"]))
        full = taught = norm(_mentors(terms))
        with _unscheduled(method) as some:
            if some:
                full = norm(_mentors(method(lesson)))
    return Scale(*(_over(*pair) for pair in ((taught, plain), (taught, mine), (full, plain))))


def _over(a: float, b: float) -> float:
    return a / b if b > 0 and math.isfinite(a / b) else math.nan


def _mentors(terms: Terms) -> Tensor:
    """All terms but the student's own, with their factors."""
    return _weighed(terms, [name for name in terms.values if not is_own_loss(name)])


def _weighed(terms: Terms, names: Sequence[str]) -> Tensor:
    kept = {name: terms.values[name] for name in names if name in terms.values}
    if not kept:
        return torch.zeros(())
    return Terms(kept, terms.coefficients).loss()


@contextmanager
def _unscheduled(method: Method) -> Iterator[bool]:
    """The method and its parts with their mentors' terms in full; says whether that changes anything."""
    parts = [part for part in method.modules() if isinstance(part, Method)]
    before = [part.schedule for part in parts]
    try:
        for part in parts:
            part.schedule = Constant()
        yield any(not isinstance(schedule, Constant) for schedule in before)
    finally:
        for part, schedule in zip(parts, before, strict=True):
            part.schedule = schedule
