"""Weightings: how much each mentor counts on each unit, and, if they say so, at which temperature.

Shapes: M mentors, B samples, U units. None carries a gradient. Weights sum to 1 over the mentors that count on a unit,
but for those of ``classroomkd``, which stands in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson, choose
from classroomkd.functional import confidence_weights, draw, entropy_weights, gram_weights, kl_gradients, wide
from classroomkd.methods.pieces.divergences import DIST, KL, Divergence
from classroomkd.methods.pieces.sharing import shortest, spread
from classroomkd.methods.pieces.truth import Unlabelled, truth

__all__ = ["Best", "Confidence", "Entropy", "Gram", "Random", "Uniform", "Weighed", "Weighting"]


ON_TASK: Mapping[str, Unlabelled] = {"pose": "agreement"}  # of ``confidence``; a joint without a label is taught there


class Weighed(NamedTuple):
    """What a weighting finds: ``(M, B, U)`` each; a temperature of None is the divergence's own."""

    weight: Tensor
    temperature: Tensor | None = None


class Weighting(nn.Module):
    """How much each mentor counts.

    Attributes:
        mentor_indices: places of the only mentors that are read; None = all.
        order_matters: whether the mentors' order matters.
        whole_batch: whether it compares the samples of a batch with each other, or sums over them.
        needs_truth: whether it means nothing on units without a truth.
        by_agreement: whether what mentors agree on is truth enough.
        distributions: whether it reads the distributions of a task's answers, which not every task has.
        calibration: whether it reads the mentors' held-out scores.
        bound: how hard all mentors together may pull at a unit, in longest gradients of its label's loss; 0 = no bound.
    """

    mentor_indices: tuple[int, ...] | None = None
    order_matters: bool = False
    whole_batch: bool = False
    needs_truth: bool = False
    by_agreement: bool = False
    distributions: bool = False
    calibration: bool = False
    bound: float = 0.0

    def setup(self, info: ClassInfo) -> None:
        """Called once, before the first lesson."""

    def units(self, lesson: Lesson) -> Tensor:
        """The units that mentors teach by these weights, ``(B, U)`` bool."""
        task, target = lesson.task, lesson.target
        return task.mask(target) if self.needs_truth else task.distill_mask(target)

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int, divergence: Divergence) -> Tensor | None:
        """Who can have a weight, ``(M, B)`` bool, before anybody is asked; see :meth:`Method.eligible`."""
        return knows_MB

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """Weights, 0 where ``known_MBU`` is false, that sum to 1 over M wherever anybody is known."""
        raise NotImplementedError

    def strength(self, temperature: Tensor | None) -> Tensor | None:
        """What multiplies a mentor's weight in the loss at a temperature, beside the divergence's own T²; None = 1."""
        return None


class Uniform(Weighting):
    """Everybody counts the same."""

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`."""
        weight = known_MBU.to(wide(lesson.student.prediction).dtype)  # a third in bf16 is 0.334
        return Weighed(weight / weight.sum(0).clamp_min(1))


class Entropy(Weighting):
    """The surer a mentor (the lower its entropy at T = 1), the more it counts; EBKD's (1 − H_m / Σ H) / (M − 1)."""

    distributions = True

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`; the mean over the distributions of a unit."""
        each = [entropy_weights(z, known_MBU) for z in lesson.task.distributions(mentors)]
        return Weighed(torch.stack(each).mean(0))


class Confidence(Weighting):
    """The likelier a mentor holds the truth, the more it counts; CA-MKD's (1 − softmax_m CE) / (M − 1).

    Args:
        unlabelled: on samples without a label nobody teaches (``skip``), or what the mentors agree on counts as true
            (``agreement``); None = ``skip``, on pose ``agreement``.
    """

    def __init__(self, *, unlabelled: Unlabelled | None = None) -> None:
        super().__init__()
        self.given = unlabelled
        self.unlabelled: Unlabelled = unlabelled or "skip"
        self.needs_truth = self.unlabelled == "skip"

    def setup(self, info: ClassInfo) -> None:
        """Take the task's own way where none is given."""
        self.unlabelled = self.given or ON_TASK.get(info.task.name, "skip")
        self.needs_truth = self.unlabelled == "skip"

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`."""
        loss = -lesson.task.log_credibility(mentors, truth(self.unlabelled, lesson))
        return Weighed(confidence_weights(loss, known_MBU))


class Gram(Weighting):
    """AEKD: the convex combination of the mentors' batch-mean gradients at the student's logits that is shortest.

    One weight a mentor for the whole batch (of all ranks).

    Args:
        cap: the largest weight; None = no cap. Below 1/n for n mentors it is read as 1/n.
    """

    whole_batch = True
    distributions = True

    def __init__(self, *, cap: Annotated[float, Field(gt=0, le=1)] | None = None) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`; by autograd on the student's answer, each unit with coordinates of its own.

        In closed form for ``kl`` on ``(M, B, C)``; a task may compare larger answers as it likes.
        """
        if isinstance(divergence, KL) and mentors.dim() == 3:
            task, student = lesson.task, lesson.student.prediction
            pulls = [
                kl_gradients(own, theirs, divergence.temperature, known_MBU, lesson.reduce)
                for own, theirs in zip(task.distributions(student), task.distributions(mentors), strict=True)
            ]
            return Weighed(spread(gram_weights(torch.cat(pulls, 1), self.cap), known_MBU))
        count = known_MBU.flatten(1).sum(1)
        # A student for each mentor, so that one backward pass tells their pulls apart.
        logits = wide(lesson.student.prediction.detach()).expand(mentors.shape).requires_grad_()
        with torch.enable_grad():
            far = divergence(lesson, logits, mentors, known_MBU)
            whole = far.dim() == 1  # lives on the batch, so it is a mean already
            far = far if whole else far.where(known_MBU, 0.0)
            sums = torch.autograd.grad(far.sum(), logits)[0].sum(1).flatten(1)
        return Weighed(spread(shortest(sums, count, self.cap, lesson.reduce, mean=not whole), known_MBU))


class Random(Weighting):
    """One mentor, drawn anew for every sample and step; the draw depends on (seed, sample, step) alone.

    Args:
        seed: of the draws.
    """

    order_matters = True  # a draw belongs to a place

    def __init__(self, *, seed: Annotated[int, Field(ge=0)] = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`."""
        return Weighed(self._drawn(known_MBU, lesson.ids, lesson.step))

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int, divergence: Divergence) -> Tensor | None:
        """Whoever is drawn. DIST compares whole batches, so everybody's answers are read."""
        if isinstance(divergence, DIST):
            return knows_MB
        return self._drawn(knows_MB.unsqueeze(-1), ids, step).squeeze(-1) > 0

    def _drawn(self, known_MBU: Tensor, ids: Tensor | None, step: int) -> Tensor:
        count = known_MBU.shape[1]
        ids = ids if ids is not None else torch.arange(count, device=known_MBU.device)
        luck = draw(ids, step, [self.seed + 7919 * m for m in range(len(known_MBU))])  # (M, B)
        luck = luck.unsqueeze(-1).where(known_MBU, -1.0)
        drawn = torch.zeros_like(luck).scatter(0, luck.argmax(0, keepdim=True), 1.0)
        return drawn * known_MBU


class Best(Uniform):
    """One mentor alone; the others are not asked.

    Args:
        mentor: ``best`` by held-out score, a name, or a position.
    """

    order_matters = True

    def __init__(self, *, mentor: str | int = "best") -> None:
        super().__init__()
        self.mentor = mentor

    def setup(self, info: ClassInfo) -> None:
        """Find the mentor."""
        self.mentor_indices = choose(info, self.mentor, "weighting best")
