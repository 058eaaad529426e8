"""Held-out calibration of mentors for a classroom in a foreign loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from classroomkd.classroom import Calibration, MentorPool
from classroomkd.errors import UserError
from classroomkd.train.scoring import calibration_of

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(mentors: MentorPool, batches: Iterable[tuple[Tensor, Tensor]]) -> Calibration:
    """Fit every mentor's held-out temperature and class ceilings.

    Args:
        mentors: ``classroom.mentors``.
        batches: ``(inputs, target)`` of samples that no mentor was trained on, inputs as the student gets them.

    Returns:
        What to assign to ``classroom.calibration``.

    Raises:
        UserError: no mentors, or no batches.
    """
    logits, targets = [], []
    for inputs, target in batches:
        answers = mentors.ask(inputs)
        if answers is None:
            raise UserError("calibrate: this classroom has no mentors")
        logits.append(answers.prediction.float())
        targets.append(target.to(answers.prediction.device))
    if not logits:
        raise UserError("calibrate: the held-out loader gave no batch")
    return calibration_of(torch.cat(logits, 1), torch.cat(targets))
