"""kd: one mentor at a fixed temperature.

System   Hinton, Vinyals, Dean 2015, arXiv 1503.02531
Rule     L = supervised_weight · CE + weight · T² · mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T))
Shapes   z (B, C); the KL is (B, U) over the task's units, its mean over those mentors may teach, labelled or not
Defaults T 4, weight 0.9, supervised_weight 0.1 (RepDistiller, mdistiller: CIFAR-100)
Mentor   by name, by position, or "best" (highest score on the validation part, measured before training; the
         first mentor where nobody measured)
Cost     the student's step and one mentor's forward: only the chosen mentor is asked
Hurts    under-trained tiny students; a mentor whose answers on the training data are one-hot adds little
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from classroomkd.classroom import ClassInfo, Lesson, Method, Terms, choose

__all__ = ["KD"]


class KD(Method):
    """Hinton's distillation from one mentor.

    Args:
        temperature: T > 0.
        weight: factor of the distillation term.
        supervised_weight: factor of the student's own loss.
        mentor: a name, a position, or ``best``.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 4.0,
        weight: Annotated[float, Field(ge=0)] = 0.9,
        supervised_weight: Annotated[float, Field(ge=0)] = 0.1,
        mentor: str | int = "best",
    ) -> None:
        super().__init__()
        self.temperature, self.mentor, self.index, self.mentors = temperature, mentor, 0, 1
        self.coefficients = {"supervised": supervised_weight, "distilled": weight}

    def setup(self, info: ClassInfo) -> None:
        """Find the mentor."""
        super().setup(info)
        self.mentors = len(info.mentors)
        self.asks = choose(info, self.mentor, "kd")
        self.index = self.asks[0]

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and distilled terms."""
        assert lesson.mentors is not None
        mask = lesson.task.mask(lesson.target)
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        answers, reach = lesson.mentors.prediction, lesson.task.reach(lesson.target)
        divergence = lesson.task.divergence(lesson.student.prediction, answers, self.temperature)[0]
        known = reach
        if reach.shape[-1] > 1:  # of several joints there may be some that it does not know: 0 in the divergence
            known = reach & (lesson.task.log_credibility(answers, lesson.target)[0] != -torch.inf)
        shape = (self.mentors, *mask.shape)
        active = torch.zeros(shape, dtype=torch.bool, device=mask.device)
        active[self.index] = known
        return Terms(
            {"supervised": lesson.mean(own, mask), "distilled": self.temperature**2 * lesson.mean(divergence, reach)},
            self.coefficients,
            weight=active.to(own.dtype),
            temperature=torch.full(shape, self.temperature, dtype=own.dtype, device=mask.device),
            active=active,
        )
