"""The clock of a classroom: how far the training is, as whoever runs the loop says it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from classroomkd.classroom.schedule import Schedule
from classroomkd.errors import UserError

__all__ = ["Clock"]

_USUAL = 240  # epochs, of the trainings that the released schedules are made for: where nobody says how many there are
_HOW = (
    "set classroom.epochs = EPOCHS once and classroom.epoch = EPOCH (from 0) as it goes, "
    "or classroom.progress = EPOCH / EPOCHS"
)
_UNTOLD = f"nobody says how far the training is: {_HOW}"


@dataclass
class Clock:
    """What was said of the time; None = nobody said it.

    Attributes:
        now: the epoch, from 0, whole or not.
        share: of the training that is over, 0 to 1.
        epochs: how many epochs the training has.
        quiet: the warning was given, so it is not given again.
    """

    now: float | None = None
    share: float | None = None
    epochs: float | None = None
    quiet: bool = False

    @property
    def length(self) -> float:
        """Epochs of the training; 240 where nobody said."""
        return self.epochs or _USUAL

    @property
    def epoch(self) -> float:
        """The epoch; from the share where only that was said."""
        if self.now is not None:
            return self.now
        return 0.0 if self.share is None else self.share * self.length

    @property
    def progress(self) -> float:
        """The share of the training that is over; from the epoch where only that was said."""
        if self.share is not None:
            return self.share
        return 0.0 if self.now is None else min(self.now / self.length, 1.0)

    def set_progress(self, share: float) -> None:
        """Say it.

        Raises:
            UserError: what is no share.
        """
        if not 0 <= share <= 1:
            raise UserError(
                f"classroom.progress is the share of the training that is over, between 0 and 1, not {share}; epochs "
                "go to classroom.epoch"
            )
        self.share = share

    def remind(self, schedules: Iterable[Schedule], method: str | None = None) -> None:
        """Warn, once, of a schedule that does not know the time, or that the training is too short for.

        For a training step that is not the first: by then a loop that says the time has said it. ``method`` is the
        name of one whose own rule asks for the epoch.
        """
        named = ((f"schedule '{type(s).__name__.lower()}' of the mentors' terms", s) for s in schedules)
        warned = [f"{name} {trouble}" for name, s in named if s.epochs is not None and (trouble := self._trouble(s))]
        if method is not None and self.now is None and self.share is None:
            warned.insert(0, f"method '{method}' stays in its first epoch, for {_UNTOLD}")
        if warned:
            self.quiet = True
            warnings.warn(warned[0], UserWarning, stacklevel=5)

    def _trouble(self, schedule: Schedule) -> str | None:
        if self.now is None and self.share is None:
            return f"stays at {schedule(0.0, 0.0):.3g}, for {_UNTOLD}"
        if self.epochs is None and (self.share is None if schedule.is_share else self.now is None):
            what = "a share of the training" if schedule.is_share else "of epochs"
            return f"is {what}, and nobody says how many epochs there are; {_USUAL} are assumed: {_HOW}"
        return None if self.epochs is None else schedule.remark(self.epochs)
