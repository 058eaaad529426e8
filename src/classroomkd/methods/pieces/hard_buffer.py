"""A buffer of samples that the student got wrong, with what the mentors said about them (mmkd)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from classroomkd.classroom import Answers, Lesson
from classroomkd.functional import draw

__all__ = ["HardBuffer", "mistaken", "recorded", "rows_of"]

_SLOTS, _SAMPLE = 1, 2  # seeds of the two kinds of draw


class HardBuffer:
    """Rows of samples. Until it is full it takes what comes; then each new mistake takes the place of a random row.

    A batch that does not fit in any more is cut, so the buffer becomes exactly full whatever the batch's size. Nothing
    here waits for the device: how many rows there are is known to the host, and where a mistake goes is drawn by hash
    from the step, so all ranks and a run taken up again agree.

    Args:
        capacity: rows.

    Attributes:
        count: rows held.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def add(self, rows: Sequence[Tensor], mistaken_B: Tensor, step: int) -> None:
        """Take the rows of a batch.

        Args:
            rows: what makes up a sample, each ``(B, …)``; of the same shapes every time.
            mistaken_B: bool; which of them enter a full buffer.
            step: key of the draw.
        """
        if not self._rows:
            self._rows = [x.new_zeros((self.capacity, *x.shape[1:])) for x in rows]
        self._rows = [own.to(x.device) for own, x in zip(self._rows, rows, strict=True)]  # after loading
        taken = min(len(mistaken_B), (self.capacity - self.count) or self.capacity)
        if self.count < self.capacity:
            for own, x in zip(self._rows, rows, strict=True):
                own[self.count : self.count + taken] = x[:taken]
            self.count += taken
            return
        slots = self._drawn(taken, step, _SLOTS, mistaken_B.device)
        for own, x in zip(self._rows, rows, strict=True):
            enters = mistaken_B[:taken].view(-1, *[1] * (x.dim() - 1))
            own[slots] = torch.where(enters, x[:taken].to(own.dtype), own[slots])

    def sample(self, count: int, step: int) -> list[Tensor]:
        """Distinct random rows, each ``(count, …)``."""
        places = self._drawn(count, step, _SAMPLE, self._rows[0].device)
        return [own[places] for own in self._rows]

    def _drawn(self, count: int, step: int, seed: int, device: torch.device) -> Tensor:
        """Distinct places among the rows held."""
        assert count <= self.count
        return draw(torch.arange(self.count, device=device), step, seed).argsort(stable=True)[:count]

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain tensors and numbers."""
        return {"count": self.count, "rows": list(self._rows)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state; of another capacity: as many rows as fit."""
        self.count = min(state["count"], self.capacity)
        self._rows = []
        for row in state["rows"]:
            own = row.new_zeros((self.capacity, *row.shape[1:]))
            own[: self.count] = row[: self.count]
            self._rows.append(own)


def mistaken(lesson: Lesson) -> Tensor:
    """``(B,)`` bool: the student is wrong on any unit that counts, as the task sees it."""
    return lesson.task.mistaken(lesson.student.prediction, lesson.target).any(-1)


def rows_of(lesson: Lesson, tap: str | None) -> list[Tensor]:
    """Inputs, target, the mentors' predictions ``(B, M, …)`` and their features at ``tap``, as rows of samples."""
    assert lesson.mentors is not None
    features = () if tap is None else lesson.mentors.features[tap]
    return [lesson.inputs, lesson.target, lesson.mentors.prediction.movedim(0, 1), *features]


def recorded(rows: Sequence[Tensor], lesson: Lesson, student: Answers, mentors: Answers | None) -> Lesson:
    """A lesson of the kind of ``lesson`` on rows from the buffer, which are the same on every rank."""
    return replace(
        lesson,
        inputs=rows[0],
        target=rows[1],
        student=student,
        mentors=mentors,
        ids=None,
        views=None,
        reduce=None,
        join=None,
        heads=None,
        outcome=None,
        sample_weight=None,
    )
