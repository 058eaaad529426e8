"""What a task is: the quantities methods are written against, so that one method serves every task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd._renamed import OldName, adopt_old_names
from classroomkd.errors import UserError
from classroomkd.functional.divergence import wide

__all__ = ["Task"]


class Task(ABC):
    """What an answer is and what "right" means, per sample and unit.

    B samples, U units a sample (1 for classification, K for keypoints), M mentors. ``answer`` is whatever the network
    predicts for this task: ``(B, C)`` logits for classification; a leading M is allowed where noted.
    """

    name: str
    steepest: float | None = None  # no gradient of a unit's supervised loss on its answer is longer; None = unbounded
    has_unlabelled_units: bool = False  # then ranks can hold different numbers of units with a truth
    unlabelled: bool = False  # whether there may be samples without any label
    has_distributions: ClassVar[bool] = True  # whether answers are logits that a temperature can act on
    has_vectors: ClassVar[bool] = False  # whether an answer is one vector of logits a sample
    has_vote: ClassVar[bool] = False  # whether :meth:`agreed`, :meth:`certainty` and :meth:`doubts` say anything

    topics = OldName("unit_labels")
    reach = OldName("distill_mask")
    partial = OldName("has_unlabelled_units")

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        adopt_old_names(cls)

    @classmethod
    def sketch(cls) -> Task:
        """A task of this kind with nothing known of the data, for checks of recipes."""
        return cls()

    @abstractmethod
    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """The student's own loss against the labels, ``(B, U)``, nats."""

    @abstractmethod
    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """Log of the credibility in (0, 1] of an answer, ``(B, U)``; of mentors' answers ``(M, B, …)``, ``(M, B, U)``.

        NaN says that the answer is not finite there.
        """

    def credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """The credibility in (0, 1], ``(B, U)`` or ``(M, B, U)``."""
        return self.log_credibility(answer, target).exp()

    def agreed(self, answers: Tensor, target: Tensor) -> Tensor:
        """Targets in which units without a truth have what the mentors agree on, as far as the task knows how.

        No gradient flows, and nothing waits for the device. Here nobody agrees on anything: the target as it is.

        Args:
            answers: of all mentors, ``(M, B, …)``.
            target: ``(B, …)``.
        """
        return target

    def certainty(self, answers: Tensor) -> Tensor | None:
        """How sure the mentors' answers ``(M, B, …)`` are together of what they agree on, ``(B, U)`` in [0, 1].

        No gradient flows. NaN where no answer is finite; None where not ``has_vote``.
        """
        return None

    def doubts(self, answers: Tensor) -> Tensor | None:
        """How little the mentors' answers ``(M, B, …)`` say together about each sample, ``(B,)``: 0 sure, 1 nothing.

        As :meth:`certainty` but for the whole sample, and it may look at more than the likeliest.
        """
        return None

    def no_target(self, answer: Tensor) -> Tensor:
        """The target of a batch that nobody labelled, for an answer ``(B, …)`` to it.

        Raises:
            UserError: every sample of this task must have a truth (here).
        """
        raise UserError(f"the batch has no target, and {self.name} teaches none without; give one")

    @abstractmethod
    def mask(self, target: Tensor) -> Tensor:
        """Which units count, ``(B, U)`` bool: those with a truth to learn and to be measured by."""

    def labelled(self, target: Tensor) -> Tensor:
        """Which samples have a label, ``(B,)`` bool: here those of which any unit counts."""
        return self.mask(target).any(-1)

    def distill_mask(self, target: Tensor) -> Tensor:
        """Which units mentors may teach, ``(B, U)`` bool: those of :meth:`mask`, and more where no truth is needed."""
        return self.mask(target)

    def blanked(self, answers: Tensor, units_MBU: Tensor) -> Tensor:
        """Mentors' answers ``(M, B, …)`` with zeros, without a gradient, in place of what must not be read.

        Zeros are selected, not multiplied, since 0 · NaN is NaN. Here a sample's whole answer goes where any of its
        units is marked; a task whose units have parts of the answer to themselves blanks those alone, and also units
        of which a mentor knows nothing.

        Args:
            answers: of all mentors.
            units_MBU: bool, units where the answer is not finite.
        """
        marked = units_MBU.any(-1).view(*answers.shape[:2], *[1] * (answers.dim() - 2))
        return torch.where(marked, 0.0, answers)

    def broken(self, answers: Tensor) -> Tensor:
        """Which of the mentors' answers ``(M, B, …)`` are not finite: ``(M, B)`` bool.

        A NaN or +inf anywhere, or nothing but ``-inf``; single ``-inf`` are classes that a mentor rules out.
        """
        top = wide(answers).flatten(2).amax(-1)  # NaN wins
        return ~top.isfinite()

    def doubt(self, answers: Tensor) -> str | None:
        """What looks wrong with a mentor's answers ``(B, …)``, as the rest of a sentence that begins with its name."""
        return None

    def resized(self, inputs: Tensor, size: tuple[int, int], who: str) -> Tensor:
        """Pictures ``(B, channels, H, W)`` at another (H, W), for a network that nobody drew them for at its own size.

        Args:
            inputs: as the student sees them.
            size: that of ``who``, whom messages name.

        Raises:
            UserError: an answer to them would not be one to the student's pictures.
        """
        return F.interpolate(inputs, size=size, mode="bilinear", antialias=True, align_corners=False)

    @abstractmethod
    def unit_labels(self, target: Tensor) -> Tensor:
        """What each unit is about, ``(B, U)`` int64: its class, its keypoint; columns of *who taught what*."""

    @abstractmethod
    def distributions(self, answer: Tensor) -> list[Tensor]:
        """The logits a temperature can act on, each ``(…, B, U, bins)``; none where not ``has_distributions``."""

    @abstractmethod
    def labels(self, target: Tensor) -> list[Tensor]:
        """The true bin of each of :meth:`distributions`, each ``(B, U)`` int64."""

    @torch.no_grad()
    def mistaken(self, answer: Tensor, target: Tensor) -> Tensor:
        """Which units an answer gets wrong, ``(B, U)`` bool; false for units that do not count.

        Here where the likeliest bin of any distribution is not the true one; a task whose answers can be nearly right
        says how near is right.
        """
        pairs = zip(self.distributions(answer), self.labels(target), strict=True)
        return torch.stack([logits.argmax(-1) != label for logits, label in pairs]).any(0) & self.mask(target)

    @abstractmethod
    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """How far the student is from each mentor at a temperature ((M, B, U) or a number): ``(M, B, U)``, nats."""

    @abstractmethod
    def check(self, student: Tensor, target: Tensor) -> None:
        """Raise ``UserError`` when an answer of this shape cannot belong to this target."""
