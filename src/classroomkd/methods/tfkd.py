"""tfkd: no better network teaches: the student's frozen self of an earlier training, or a teacher that is written down.

System   Tf-KD, Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR
         2020, arXiv 1909.11723; code ``yuanli2333/Teacher-free-Knowledge-Distillation``
Rule     virtual: L = supervised_weight · CE + weight · mean_b KL(softmax(u_y / T) ‖ softmax(z_s)); u_y is ``correct``
         at the true class and (1 − correct) / (C − 1) elsewhere. Probabilities stand where logits usually do, the
         student is not softened, and there is no T²: the released rule
         self: L = supervised_weight · CE + weight · T² · mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T)), which is kd
         from a mentor that is the student's architecture, trained before by itself
Shapes   z (B, C); the KL is (B, U) over the units with a truth (virtual) or those that may be taught (self); of a unit
         with several distributions it is their sum
Defaults virtual: T 20, correct 0.99, weight 0.1, supervised_weight 0.9. self: T 6 (pose 1), weight 0.475,
         supervised_weight 0.05. Both are the released ones for ResNet-18 on CIFAR-100, in means over the batch
Mentor   self: by name, by position, or "best"; virtual: nobody is asked
Deviates the release averages the KL over the classes, too, which makes it C times smaller, and multiplies by 100
         (virtual) or 50 (self); here both are one factor: 0.1 · 100 / 100, and 0.95 · 50 / 100
Cost     virtual: the student's step. self: and one mentor's forward; the earlier training is a cost to be counted
Hurts    virtual: at T 20 the teacher is nearly uniform, so that a large weight keeps the student from being sure;
         self: a teacher that has fitted the training data repeats the labels
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson, Method, Needs, Terms
from classroomkd.functional import wide
from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Weighted

__all__ = ["TFKD"]


class TFKD(Weighted):
    """Distillation without a better network; see the data sheet.

    Args:
        teacher: ``virtual``, written down; ``self``, a mentor that is the student's own earlier training.
        temperature: T > 0.
        weight: factor of what the teacher says.
        supervised_weight: factor of the student's own loss.
        correct: virtual: the probability of the true class.
        mentor: self: a name, a position, or ``best``.
    """

    needs = Needs(mentors=0)
    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        teacher: Literal["virtual", "self"] = "virtual",
        temperature: Positive = 20.0,
        weight: NonNegative = 0.1,
        supervised_weight: NonNegative = 0.9,
        correct: Annotated[float, Field(gt=0, lt=1)] = 0.99,
        mentor: Mentor = "best",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.virtual, self.temperature, self.correct, self.mentor = teacher == "virtual", temperature, correct, mentor
        if self.virtual:
            self.coefficients = {"supervised": supervised_weight, "virtual": weight}
            self.needs = Needs(mentors=0, distributions=True)

    @classmethod
    def defaults_on(cls, task: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """See the base: those of ``teacher: self`` are others."""
        if options.get("teacher") != "self":
            return {}
        own = {"temperature": 6.0, "weight": 0.475, "supervised_weight": 0.05}
        return {**own, **super().defaults_on(task, options)}

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base."""
        of_self = options.get("teacher") == "self"
        if of_self and options.get("correct", 0.99) != 0.99:
            return ["'correct' acts with teacher: virtual only"]
        if not of_self and options.get("mentor", "best") != "best":
            return ["'mentor' acts with teacher: self only"]
        return []

    @property
    def teaches(self) -> bool:
        """See the base: the virtual teacher is one, too."""
        return True

    @property
    def teaches_all(self) -> bool:
        """See the base: the virtual teacher knows what is true, so it teaches labelled samples alone."""
        return not self.virtual

    def setup(self, info: ClassInfo) -> None:
        """See the base; nobody is chosen where nobody is asked."""
        if self.virtual:
            Method.setup(self, info)
        else:
            super().setup(info)

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and virtual terms; with a mentor those of :class:`Weighted`."""
        if not self.virtual:
            return super().loss(lesson)
        task, mask = lesson.task, lesson.task.mask(lesson.target)
        answer = lesson.student.prediction
        pairs = zip(task.distributions(answer), task.labels(lesson.target), strict=True)
        far = torch.stack([self.far(logits, label) for logits, label in pairs]).sum(0)
        own = task.supervised(answer, lesson.target)
        return Terms({"supervised": lesson.mean(own, mask), "virtual": lesson.mean(far, mask)}, self.coefficients)

    def far(self, logits: Tensor, label: Tensor) -> Tensor:
        """KL(softmax(u_y / T) ‖ softmax(z)) of logits ``(B, U, C)`` and labels ``(B, U)``: ``(B, U)``, nats."""
        log_q = torch.log_softmax(wide(logits), -1)
        others, rest = log_q.shape[-1] - 1, (1 - self.correct) / (log_q.shape[-1] - 1)
        # softmax(u / T) has two values: of the true class, and of every other.
        log_all = math.log(math.exp(self.correct / self.temperature) + others * math.exp(rest / self.temperature))
        log_true, log_other = self.correct / self.temperature - log_all, rest / self.temperature - log_all
        true, other = math.exp(log_true), math.exp(log_other)
        at = log_q.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        cross = true * at + other * (log_q.sum(-1) - at)
        return true * log_true + others * other * log_other - cross
