"""Divergences: how far the student is from each mentor, T² included, from logits.

Shapes: M mentors, B samples, U units, K bins. A divergence of samples gives ``(M, B, U)``; one that lives on the batch
(``dist``) gives ``(M,)``, and per-sample weights are then averaged over their samples. A unit with several
distributions (a joint's x-bins and y-bins) has their sum, as a task's own divergence and supervised loss do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from classroomkd._pieces import make
from classroomkd.classroom import Lesson
from classroomkd.functional import dist_by_mentor, dkd_per_sample, dtkd_per_sample

__all__ = ["DIVERGENCES", "Divergence", "DivergenceOption", "make_divergence"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
DivergenceOption = Literal["kl", "dkd", "dist", "dtkd"] | Mapping[str, Any]


class Divergence:
    """How far the student is from each mentor.

    Attributes:
        needs_truth: whether it reads the labels, so that it means nothing on units without one.
        distributions: whether it reads the distributions of a task's answers, which not every task has.
        whole_batch: whether it compares the samples of a batch with each other.
    """

    temperature: float
    needs_truth: ClassVar[bool] = False
    distributions: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = False

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        """``(M, B, U)``, or ``(M,)`` for one that lives on the batch, T² included.

        Args:
            lesson: for its task and target.
            student: its answer, ``(B, C)`` for classification; or one for each mentor, ``(M, B, C)``.
            mentors: their answers, ``(M, B, C)`` for classification, without NaN; read where ``known_MBU`` is true.
            known_MBU: where a mentor counts.
            temperature: ``(M, B, U)``, of a weighting that sets it; None = the divergence's own.
        """
        raise NotImplementedError


class KL(Divergence):
    """T² · KL(mentor ‖ student).

    Args:
        temperature: T.
    """

    def __init__(self, *, temperature: Positive = 4.0) -> None:
        self.temperature = temperature

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        """``(M, B, U)``."""
        if student.dim() < mentors.dim():
            at: float | Tensor = self.temperature if temperature is None else temperature
            return at**2 * lesson.task.divergence(student, mentors, at)
        # To a task, one student for each of M mentors is one mentor on M · B samples.
        ours, theirs = student.flatten(0, 1), mentors.flatten(0, 1).unsqueeze(0)
        far = lesson.task.divergence(ours, theirs, self.temperature)
        return self.temperature**2 * far.view(*mentors.shape[:2], -1)


class DKD(Divergence):
    """Decoupled: target against the rest, and the rest among themselves.

    Args:
        alpha, beta: factors of the two.
        temperature: T.
    """

    needs_truth = True
    distributions = True

    def __init__(self, *, alpha: NonNegative = 1.0, beta: NonNegative = 8.0, temperature: Positive = 4.0) -> None:
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        """``(M, B, U)``, the sum over the distributions of a unit."""
        task, parts = lesson.task, []
        at: float | Tensor = self.temperature if temperature is None else temperature
        for own, theirs, label in zip(
            task.distributions(student), task.distributions(mentors), task.labels(lesson.target), strict=True
        ):
            parts.append(dkd_per_sample(own, theirs, label, self.alpha, self.beta, at))
        return torch.stack(parts).sum(0)


class DTKD(Divergence):
    """Two temperatures, from the largest logits of mentor and student, beside plain KL.

    Args:
        alpha, beta: factors of the two.
        temperature: T, the reference temperature.
        detach_temperature: no gradient through the temperatures; the released code lets it flow.
        floor: the least temperature of either; 0 = none, as released.
    """

    distributions = True

    def __init__(
        self,
        *,
        alpha: NonNegative = 3.0,
        beta: NonNegative = 1.0,
        temperature: Positive = 4.0,
        detach_temperature: bool = False,
        floor: NonNegative = 1.0,
    ) -> None:
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.detach, self.floor = detach_temperature, floor

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        """``(M, B, U)``, the sum over the distributions of a unit."""
        task, parts = lesson.task, []
        at: float | Tensor = self.temperature if temperature is None else temperature
        for own, theirs in zip(task.distributions(student), task.distributions(mentors), strict=True):
            parts.append(dtkd_per_sample(own, theirs, self.alpha, self.beta, at, self.detach, self.floor))
        return torch.stack(parts).sum(0)


class DIST(Divergence):
    """1 − correlation of rows (within a sample) and of columns (within a class, over the batch).

    Args:
        beta, gamma: factors of the two.
        temperature: T.
    """

    whole_batch = True
    distributions = True

    def __init__(self, *, beta: NonNegative = 1.0, gamma: NonNegative = 1.0, temperature: Positive = 4.0) -> None:
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        """``(M,)``; rows are all units of all samples, columns run over the rows of all ranks."""
        task, parts = lesson.task, []
        rows = self._rows(lesson, known_MBU)
        at: float | Tensor = self.temperature if temperature is None else self._rows(lesson, temperature)
        for own, theirs in zip(task.distributions(student), task.distributions(mentors), strict=True):
            own, theirs = (lesson.all_gather(x.movedim(-3, 0)).movedim(0, -3).flatten(-3, -2) for x in (own, theirs))
            parts.append(dist_by_mentor(own, theirs, self.beta, self.gamma, at, rows))
        return torch.stack(parts).sum(0)

    @staticmethod
    def _rows(lesson: Lesson, values_MBU: Tensor) -> Tensor:
        """``(M, B·U)``, of all ranks."""
        return lesson.all_gather(values_MBU.movedim(0, -1)).flatten(0, 1).movedim(-1, 0)


DIVERGENCES: dict[str, type[Divergence]] = {"kl": KL, "dkd": DKD, "dist": DIST, "dtkd": DTKD}


def make_divergence(value: str | Mapping[str, Any], temperature: float) -> Divergence:
    """A divergence by name or mapping; the method's temperature where the mapping gives none."""
    if isinstance(value, str):
        value = {"name": value}
    elif len(value) == 1 and "name" not in value:
        ((name, options),) = value.items()
        value = {"name": name, **(options or {})}
    return make("divergence", DIVERGENCES, {"temperature": temperature, **value})
