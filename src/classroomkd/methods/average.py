"""average: all mentors count the same (AVER).

System   the baseline of multi-teacher papers (You et al. 2017; CA-MKD's and ClassroomKD's "AVER")
Rule     L = supervised_weight · CE + weight · T² · mean_m mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T))
Shapes   z_m (M, B, C), z_s (B, C); the KL is (M, B, U)
Defaults T 4, weight 1, supervised_weight 1 (CA-MKD's released training loop)
Cost     the student's step and M forwards
Hurts    when some mentors are plainly bad: they count as much as the good ones
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from classroomkd.classroom import Lesson, Method, Terms, masked_mean

__all__ = ["Average"]


class Average(Method):
    """Plain averaging of mentors.

    Args:
        temperature: T > 0.
        weight: factor of the distillation term.
        supervised_weight: factor of the student's own loss.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 4.0,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        supervised_weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.coefficients = {"supervised": supervised_weight, "distilled": weight}

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and distilled terms."""
        assert lesson.mentors is not None
        mask = lesson.task.mask(lesson.target)
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        answers = lesson.mentors.prediction
        divergence = lesson.task.divergence(lesson.student.prediction, answers, self.temperature)
        everyone = mask.expand(divergence.shape)
        distilled = self.temperature**2 * masked_mean(divergence, everyone)
        return Terms(
            {"supervised": masked_mean(own, mask), "distilled": distilled},
            self.coefficients,
            weight=everyone.to(own.dtype) / len(answers),
            temperature=torch.full_like(divergence, self.temperature, requires_grad=False),
            active=everyone,
        )
