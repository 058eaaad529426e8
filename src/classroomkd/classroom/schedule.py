"""Schedules: how much the mentors' terms count, as a function of how far the training is.

A schedule has a length. A number up to 1 is a share of the training (0.1: its first tenth, 1: all of it), a number
above 1 is epochs. Both are counted from 0 and in fractions: in the middle of the third epoch the epoch is 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from classroomkd._pieces import make

__all__ = ["SCHEDULES", "After", "Constant", "Decay", "Rampup", "Schedule", "Until", "Warmup", "make_schedule"]

Length = Annotated[float, Field(gt=0)]
_FIRST = 1 / 20  # of a warm-up over a share of the training: what 20 epochs, the released length, begin with


class Schedule:
    """A factor of every mentors' term. ``schedule(epoch, progress)`` with the epoch counted from 0.

    Attributes:
        epochs: its length; up to 1 a share of the training, above 1 epochs; None = it has none and is 1 throughout.
    """

    epochs: float | None = None

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """The factor at an epoch, whole or not; ``progress`` is the share of the training that is over, 0 to 1."""
        raise NotImplementedError

    @property
    def is_share(self) -> bool:
        """Whether the length is a share of the training and not epochs."""
        return self.epochs is not None and self.epochs <= 1

    def passed(self, epoch: float, progress: float) -> float:
        """How much of the length is over: 0 at the start, 1 at its end, more after it."""
        assert self.epochs is not None
        return (progress if self.is_share else epoch) / self.epochs

    def covers(self, epochs: float) -> bool:
        """Whether a training of so many epochs is over when the length is, or before."""
        return self.epochs is not None and (self.epochs == 1 if self.is_share else self.epochs >= epochs)

    def remark(self, epochs: float) -> str | None:
        """What is odd about it in a training of so many epochs: how it acts, in words; None = nothing."""
        return None


class Constant(Schedule):
    """1 from the first epoch to the last."""

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """1."""
        return 1.0


class Warmup(Schedule):
    """Up in a line to 1: from 1/n by 1/n an epoch, or from 1/20 over a share of the training (DKD, DTKD: 1/12).

    In epochs: 1/n when the first begins, 2/n when the second does, 1 when the n-th does.

    Args:
        epochs: its length n, above 1 in epochs, up to 1 a share of the training.
    """

    def __init__(self, *, epochs: Length = 20) -> None:
        self.epochs: float = epochs

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """See the class; never 0, so that no step is the student alone."""
        first = _FIRST if self.is_share else 1 / self.epochs
        return min(self.passed(epoch, progress) + first, 1.0)

    def remark(self, epochs: float) -> str | None:
        """See the base: a ramp that is the whole training."""
        return "rises until the training ends, so the mentors hardly teach in full" if self.covers(epochs) else None


class Rampup(Schedule):
    """exp(-5 (1 - x)²) up to 1, x the share of its length that is over: 0.0067 at the start (ONE, PCL).

    The form is Laine and Aila's, arXiv 1610.02242, by way of ONE's released code.

    Args:
        epochs: its length, above 1 in epochs, up to 1 a share of the training.
    """

    def __init__(self, *, epochs: Length = 80) -> None:
        self.epochs: float = epochs

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """See the class."""
        return math.exp(-5 * (1 - min(self.passed(epoch, progress), 1.0)) ** 2)

    def remark(self, epochs: float) -> str | None:
        """See the base: a ramp that is the whole training."""
        return "rises until the training ends, so the mentors hardly teach in full" if self.covers(epochs) else None


class Decay(Schedule):
    """1 at the start, falling in a line to 0 and 0 from there on: mentors for the beginning.

    Args:
        epochs: where 0 is reached, above 1 in epochs, up to 1 a share of the training (1: at its end).
    """

    def __init__(self, *, epochs: Length) -> None:
        self.epochs: float = epochs

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """See the class."""
        return max(1 - self.passed(epoch, progress), 0.0)

    def remark(self, epochs: float) -> str | None:
        """See the base: one that ends above 0."""
        if self.is_share or self.epochs <= epochs:
            return None
        return f"is {1 - epochs / self.epochs:.2g} when the training ends, not 0"


class After(Schedule):
    """0 until then, 1 from then on: mentors who wait until the student can walk.

    Args:
        epochs: how long without mentors, above 1 in epochs, up to 1 a share of the training.
    """

    def __init__(self, *, epochs: Length) -> None:
        self.epochs: float = epochs

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """See the class."""
        return float(self.passed(epoch, progress) >= 1)

    def remark(self, epochs: float) -> str | None:
        """See the base: mentors who wait for ever."""
        return "is 0 until the training ends, so the mentors never teach" if self.covers(epochs) else None


class Until(Schedule):
    """1 until then, 0 from then on: a stage of hints, then none.

    Args:
        epochs: how long with mentors, above 1 in epochs, up to 1 a share of the training.
    """

    def __init__(self, *, epochs: Length) -> None:
        self.epochs: float = epochs

    def __call__(self, epoch: float, progress: float = 0.0) -> float:
        """See the class."""
        return float(self.passed(epoch, progress) < 1)

    def remark(self, epochs: float) -> str | None:
        """See the base: one that changes nothing."""
        return "is 1 until the training ends, so it changes nothing" if self.covers(epochs) else None


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "warmup": Warmup,
    "rampup": Rampup,
    "decay": Decay,
    "after": After,
    "until": Until,
}


def make_schedule(value: str | Mapping[str, Any]) -> Schedule:
    """``warmup``, ``{warmup: {epochs: 20}}`` (or ``{epochs: 0.1}``), or ``{name: warmup, epochs: 20}``."""
    return make("schedule", SCHEDULES, value)
