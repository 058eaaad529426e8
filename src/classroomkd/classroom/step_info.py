"""What a lesson is told of the training around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from classroomkd.classroom.pool import Watch

__all__ = ["StepInfo"]


@dataclass(frozen=True)
class StepInfo:
    """Where the training stands when a batch is seen, and what the process around it offers.

    A loop of one's own sets the classroom's attributes of these names; a training engine passes one of these with every
    batch to :meth:`Classroom.collect`.

    Attributes:
        step: how many steps came before.
        epoch: from 0, whole or not.
        progress: the share of the training that is over, 0 to 1.
        reduce: sums a tensor over ranks; None on one.
        join: concatenates a tensor over ranks, along its first dimension; None on one.
        watch: shown every answer that mentors give to the lesson.
        skip_rows: whether a mentor runs only on the samples for which :meth:`Method.eligible` says that it can count.
            It saves time where finding these rows waits for nothing (a CPU); answers then differ in the last bits.
    """

    step: int = 0
    epoch: float = 0.0
    progress: float = 0.0
    reduce: Callable[[Tensor], Tensor] | None = None
    join: Callable[[Tensor], Tensor] | None = None
    watch: Watch | None = None
    skip_rows: bool = False
