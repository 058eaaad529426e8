"""Image classification: an answer is ``(B, C)`` logits, a target ``(B,)`` classes, one unit a sample.

A sample without a label has the class -1 (``UNLABELLED``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.classroom.task import Task
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.functional import kl_divergence, log_credibility, vote, vote_entropy
from classroomkd.functional.bound import STEEPEST

__all__ = ["Classification"]


class Classification(Task):
    """Single-label classification.

    Args:
        label_smoothing: in [0, 1), for the supervised loss alone; credibility stays the probability of the true class.
        unlabelled: whether samples may have no label (target -1). The supervised loss leaves them out, mentors may
            teach them, and their credibility of an answer is 1: nothing speaks against it. What mentors agree on
            (:meth:`agreed`) is the class of the largest mean of their probabilities at temperature 1.
    """

    name = "classification"
    steepest = STEEPEST
    has_vote = True
    has_vectors = True

    def __init__(self, label_smoothing: float = 0.0, unlabelled: bool = False) -> None:
        self.label_smoothing, self.has_unlabelled_units = label_smoothing, unlabelled
        self.unlabelled = unlabelled

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy per sample, ``(B, 1)``, nats, in float32 at least; 0 without a gradient where no label is."""
        wide = answer if answer.dtype == torch.float64 else answer.float()
        loss = F.cross_entropy(wide, self._classes(target), reduction="none", label_smoothing=self.label_smoothing)
        return self._where_labelled(loss.unsqueeze(-1), target)

    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """log p(true class), ``(B, 1)`` or ``(M, B, 1)``; 0 where no label is, NaN where the answer is not finite."""
        if not self.has_unlabelled_units:
            return log_credibility(answer, target).unsqueeze(-1)
        log = log_credibility(answer, self._classes(target)).unsqueeze(-1)
        return torch.where(self.mask(target) | log.isnan(), log, 0.0)

    def mask(self, target: Tensor) -> Tensor:
        """Every sample with a label counts: ``(B, 1)``."""
        if self.has_unlabelled_units:
            return (target != UNLABELLED).unsqueeze(-1)
        return torch.ones_like(target, dtype=torch.bool).unsqueeze(-1)

    def distill_mask(self, target: Tensor) -> Tensor:
        """Mentors may teach every sample: ``(B, 1)``."""
        return torch.ones_like(target, dtype=torch.bool).unsqueeze(-1)

    @torch.no_grad()
    def agreed(self, answers: Tensor, target: Tensor) -> Tensor:
        """Targets ``(B,)`` with the class of the mentors' vote where no label is; -1 if no answer is finite."""
        if not self.has_unlabelled_units:
            return target
        together = vote(answers)
        said = together.argmax(-1).masked_fill(together.isnan().any(-1), UNLABELLED)
        return torch.where(target == UNLABELLED, said, target)

    def vote(self, answers: Tensor) -> Tensor:
        """The mean of the mentors' probabilities at temperature 1, ``(B, 1, C)``."""
        return vote(answers).unsqueeze(-2)

    def certainty(self, answers: Tensor) -> Tensor:
        """The probability, ``(B, 1)``, that the mentors' vote gives to the class of :meth:`agreed`."""
        return self.vote(answers).amax(-1)

    def doubts(self, answers: Tensor) -> Tensor:
        """The entropy of the mentors' vote, ``(B,)``, as a share of the largest there is."""
        return vote_entropy(vote(answers))

    def no_target(self, answer: Tensor) -> Tensor:
        """``(B,)`` of -1.

        Raises:
            UserError: without ``unlabelled``.
        """
        if not self.has_unlabelled_units:
            raise UserError(
                "the batch has no target; Classroom(..., unlabelled=True) teaches samples without labels, "
                "classroom(images, None) all of a batch"
            )
        return torch.full((len(answer),), UNLABELLED, dtype=torch.int64, device=answer.device)

    def _classes(self, target: Tensor) -> Tensor:
        """Classes that can be an index: 0 stands in for no label, and what is found there is left out."""
        return target.clamp_min(0) if self.has_unlabelled_units else target

    def _where_labelled(self, values_BU: Tensor, target: Tensor) -> Tensor:
        """Values ``(B, 1)``, 0 without a gradient where no label is."""
        return torch.where(self.mask(target), values_BU, 0.0) if self.has_unlabelled_units else values_BU

    def unit_labels(self, target: Tensor) -> Tensor:
        """A sample is about its class: ``(B, 1)``; 0 stands where no label is."""
        return self._classes(target).unsqueeze(-1)

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """One categorical over the classes, ``(…, B, 1, C)``."""
        return [answer.unsqueeze(-2)]

    def labels(self, target: Tensor) -> list[Tensor]:
        """The true class, ``(B, 1)``; 0 stands where no label is."""
        return [self._classes(target).unsqueeze(-1)]

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
        """Logits must be ``(B, C)`` with integer targets ``(B,)``, -1 only where samples may have no label."""
        if student.dim() != 2:
            raise UserError(f"a classifier answers with (B, classes) logits; the student gave {tuple(student.shape)}")
        if target.dim() != 1 or target.is_floating_point():
            raise UserError(f"targets must be (B,) integer classes; got {tuple(target.shape)} {target.dtype}")
        if len(target) != len(student):
            raise UserError(f"{len(student)} images came with {len(target)} labels")
        low, high = int(target.min()), int(target.max())
        if low < (UNLABELLED if self.has_unlabelled_units else 0) or high >= student.shape[1]:
            without = "; -1, no label, needs Classroom(..., unlabelled=True)" if low == UNLABELLED else ""
            known = f"labels go from {low} to {high}, the student knows classes 0 to {student.shape[1] - 1}"
            raise UserError(known + without * (not self.has_unlabelled_units))
