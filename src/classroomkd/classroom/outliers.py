"""Samples that no mentor knows: they count less, so that what nobody is sure of is not taught like the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.classroom.lesson import Answers
from classroomkd.classroom.task import Task
from classroomkd.errors import UserError

__all__ = ["Outliers"]


class Outliers:
    """How much each sample of a batch counts.

    Args:
        task: on whose units mentors can agree.
        bound: in (0, 1], of :meth:`Task.doubts`: for classes a share of the largest entropy that a vote can have.
        weight: in [0, 1), of a sample without a label whose doubts are above that; all others count 1.

    Raises:
        UserError: a number out of range, or a task on which mentors cannot agree.
    """

    def __init__(self, task: Task, bound: float, weight: float) -> None:
        if not 0 < bound <= 1:
            raise UserError(f"outliers is a share of the largest entropy, above 0 and at most 1, not {bound}")
        if not 0 <= weight < 1:
            raise UserError(f"outlier_weight lies between 0 and 1, and at 1 does nothing; it is {weight}")
        if not task.has_vote:
            raise UserError(f"outliers asks for the entropy of the mentors' vote, which answers of {task.name} lack")
        self.task, self.bound, self.weight = task, bound, weight

    @torch.no_grad()
    def __call__(self, mentors: Answers, target: Tensor) -> Tensor | None:
        """Weights ``(B,)``, without waiting for the device; None for a task whose samples all have a label."""
        doubts = self.task.doubts(mentors.prediction) if self.task.has_unlabelled_units else None
        if doubts is None:
            return None
        unsure = doubts > self.bound  # false where nobody's answer is finite
        return torch.where(unsure & ~self.task.labelled(target), self.weight, 1.0)
