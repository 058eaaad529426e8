"""How much of a mentor's credibility on a training sample is believed, by its record on the held-out part."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from classroomkd.classroom import Lesson

__all__ = ["Credibility", "credited"]

Credibility = Literal["train", "calibrated", "held_out"]


def credited(kind: Credibility, lesson: Lesson, answers: Tensor, target: Tensor | None = None) -> Tensor:
    """Mentors' log-credibility, ``(M, B, U)``.

    Args:
        kind: ``train``, as they answered; ``calibrated``, at the temperature that fits the held-out part best;
            ``held_out``, no more than their mean held-out probability of that class.
        lesson: with ``calibration`` for the latter two.
        answers: ``(M, B, …)``.
        target: what counts as true; None = the lesson's own.
    """
    task, held_out = lesson.task, lesson.calibration
    target = lesson.target if target is None else target
    if kind == "train":
        return task.log_credibility(answers, target)
    assert held_out is not None  # Needs.calibration; the classroom checked
    if kind == "calibrated":
        scale = held_out.temperature.view(-1, *[1] * (answers.dim() - 1))
        return task.log_credibility(answers / scale, target)
    ceiling = held_out.ceiling[:, task.unit_labels(target)].log()  # (M, B, U)
    return torch.minimum(task.log_credibility(answers, target), ceiling)
