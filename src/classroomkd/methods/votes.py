"""votes: what the mentors vote for is the label of what has none (hard pseudo-labels); a control, not a way to distil.

System   pseudo-labels, Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
         Networks", ICML workshop 2013, with the mentors' vote in place of the student's own answer; ``confidence`` as
         in FixMatch, Sohn et al., NeurIPS 2020, arXiv 2001.07685
Rule     L = supervised_weight · s · mean over labelled b of CE(z_s, y) + weight · mean over used b of CE(z_s, ŷ)
         s the share of the batch's samples that have a label
         p = mean_m softmax(z_m), ŷ = argmax p; used: samples without a label whose p of ŷ is at least ``confidence``
Shapes   z_m (M, B, C); p (B, C); both means over samples, under ``label_smoothing`` alike
Units    a sample with a label is not taught by mentors: with labels everywhere this is ``none``
Defaults weight 1, supervised_weight 1, confidence 0 (all are used)
Deviates no schedule of the weight (Lee raises it in training), no second view of a sample (FixMatch)
Record   of used samples every mentor whose answer is finite counts the same, at temperature 1
Cost     the student's step and M forwards
Hurts    what mentors are wrong about is taught as if it were true, and all they know beside their first choice is lost:
         what soft answers are worth is the difference to ``average``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import Lesson, Method, Terms
from classroomkd.methods.pieces.sharing import heard
from classroomkd.methods.weighted import NonNegative

__all__ = ["Votes"]


class Votes(Method):
    """Cross-entropy against the mentors' vote; see the data sheet.

    Args:
        weight: factor of the votes' term.
        supervised_weight: factor of the student's own loss.
        confidence: the least probability of the vote for a sample to be used.
    """

    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0}
    for_unlabelled = True

    def __init__(
        self,
        *,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        confidence: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.confidence = confidence
        self.coefficients = {"supervised": supervised_weight, "distilled": weight}

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and pseudo-labelled terms; who voted counts 1/n."""
        task, student, mask = lesson.task, lesson.student.prediction, lesson.task.mask(lesson.target)
        used = self.used(lesson, mask)
        own, voted = task.supervised(student, lesson.target), task.supervised(student, lesson.agreed)
        _, counts = heard(lesson, task.distill_mask(lesson.target))
        active = counts & used
        weight = active / active.sum(0).clamp_min(1).to(own.dtype)
        return Terms(
            {"supervised": lesson.mean(own, mask), "distilled": lesson.mean(voted, used)},
            self.coefficients,
            weight=weight,
            temperature=torch.ones_like(weight),
            active=active,
            totals={"distilled": torch.ones_like(own[:1].sum().detach())},
        )

    def used(self, lesson: Lesson, mask_BU: Tensor) -> Tensor:
        """Units without a truth on which mentors agree, and surely enough, ``(B, U)`` bool."""
        assert lesson.mentors is not None
        agreed = lesson.task.mask(lesson.agreed) & ~mask_BU
        sure = lesson.task.certainty(lesson.mentors.prediction)
        return agreed if sure is None else agreed & (sure >= self.confidence)
