"""Schedules: how much the mentors' terms count, as a function of the epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from classroomkd._pieces import make

__all__ = ["SCHEDULES", "Constant", "Schedule", "Warmup", "make_schedule"]

Epochs = Annotated[float, Field(gt=0)]


class Schedule:
    """A factor of every mentors' term. ``schedule(epoch)`` with the epoch counted from 0."""

    def __call__(self, epoch: float) -> float:
        """The factor at an epoch."""
        raise NotImplementedError


class Constant(Schedule):
    """1 from the first epoch to the last."""

    def __call__(self, epoch: float) -> float:
        """1."""
        return 1.0


class Warmup(Schedule):
    """1/n in the first epoch, 2/n in the second, 1 from the n-th on (DKD, DTKD: n = 20 of 240).

    Args:
        epochs: n.
    """

    def __init__(self, *, epochs: Epochs = 20) -> None:
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        """See the class; never 0, so that the first epoch is not the student alone."""
        return min((math.floor(epoch) + 1) / self.epochs, 1.0)


class Decay(Schedule):
    """1 at the start, falling linearly to 0 at an epoch and 0 from there on: mentors for the beginning.

    Args:
        epochs: where 0 is reached.
    """

    def __init__(self, *, epochs: Epochs) -> None:
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        """See the class."""
        return max(1 - math.floor(epoch) / self.epochs, 0.0)


class After(Schedule):
    """0 before an epoch, 1 from it on: mentors who wait until the student can walk.

    Args:
        epochs: how many epochs without mentors.
    """

    def __init__(self, *, epochs: Epochs) -> None:
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        """See the class."""
        return float(math.floor(epoch) >= self.epochs)


class Until(Schedule):
    """1 before an epoch, 0 from it on: a stage of hints, then none.

    Args:
        epochs: how many epochs with mentors.
    """

    def __init__(self, *, epochs: Epochs) -> None:
        self.epochs = epochs

    def __call__(self, epoch: float) -> float:
        """See the class."""
        return float(math.floor(epoch) < self.epochs)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "warmup": Warmup,
    "decay": Decay,
    "after": After,
    "until": Until,
}


def make_schedule(value: str | Mapping[str, Any]) -> Schedule:
    """``warmup``, ``{warmup: {epochs: 20}}`` or ``{name: warmup, epochs: 20}``."""
    return make("schedule", SCHEDULES, value)
