"""Image classification: an answer is ``(B, C)`` logits, a target ``(B,)`` classes, one unit a sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.classroom.task import Task
from classroomkd.errors import UserError
from classroomkd.functional import kl_divergence, log_credibility
from classroomkd.functional.bound import STEEPEST

__all__ = ["Classification"]


class Classification(Task):
    """Single-label classification.

    Args:
        label_smoothing: in [0, 1), for the supervised loss alone; credibility stays the probability of the true class.
    """

    name = "classification"
    steepest = STEEPEST

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy per sample, ``(B, 1)``, nats, in float32 at least."""
        wide = answer if answer.dtype == torch.float64 else answer.float()
        loss = F.cross_entropy(wide, target, reduction="none", label_smoothing=self.label_smoothing)
        return loss.unsqueeze(-1)

    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """log p(true class), ``(B, 1)`` or ``(M, B, 1)``."""
        return log_credibility(answer, target).unsqueeze(-1)

    def mask(self, target: Tensor) -> Tensor:
        """Every sample counts: ``(B, 1)``."""
        return torch.ones_like(target, dtype=torch.bool).unsqueeze(-1)

    def unit_labels(self, target: Tensor) -> Tensor:
        """A sample is about its class: ``(B, 1)``."""
        return target.unsqueeze(-1)

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """One categorical over the classes, ``(…, B, 1, C)``."""
        return [answer.unsqueeze(-2)]

    def labels(self, target: Tensor) -> list[Tensor]:
        """The true class, ``(B, 1)``."""
        return [target.unsqueeze(-1)]

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """KL(mentor ‖ student) at the temperature, ``(M, B, 1)``, without T²."""
        if isinstance(temperature, Tensor):
            temperature = temperature.squeeze(-1)
        return kl_divergence(student.unsqueeze(0), mentors, temperature).unsqueeze(-1)

    def doubt(self, answers: Tensor) -> str | None:
        """Probabilities where logits are asked for: a temperature means nothing to them, and all look unsure."""
        if answers.dim() != 2 or not len(answers):
            return None
        answers = answers[:, answers.isfinite().all(0)]  # without the classes that it does not know
        if answers.shape[1] < 2:
            return None
        sums = answers.float().sum(-1)
        if bool((answers >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
            return (
                "answers probabilities (each row sums to 1); logits are asked for: take the softmax off its end, or a "
                "temperature makes nearly equal what it was sure of"
            )
        return None

    def check(self, student: Tensor, target: Tensor) -> None:
        """Logits must be ``(B, C)`` with integer targets ``(B,)``."""
        if student.dim() != 2:
            raise UserError(f"a classifier answers with (B, classes) logits; the student gave {tuple(student.shape)}")
        if target.dim() != 1 or target.is_floating_point():
            raise UserError(f"targets must be (B,) integer classes; got {tuple(target.shape)} {target.dtype}")
        if len(target) != len(student):
            raise UserError(f"{len(student)} images came with {len(target)} labels")
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= student.shape[1]:
            raise UserError(f"labels go from {low} to {high}, the student knows classes 0 to {student.shape[1] - 1}")
