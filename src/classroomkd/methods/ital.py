"""ital: a mentor chooses which samples of the batch teach, and the student knows that it chose; ours: last layer only.

System   ITAL, Yuan et al. 2021, arXiv 2110.00137 (its code was read), for linear learners of fixed features, which are
         in ``functional.teaching``. *Reconstructed* for deep students: what is carried over is ours
Rule     g_x = o_x ⊗ h_x, the gradient of sample x in the last layer: o_x of its loss l_x in the answer, h_x what the
         layer reads, with a 1 for the bias. The mentor, which sees losses and answers but no weights, takes
         the set S of the ``share`` of the samples with the least
         step² ‖o_x ⊗ h_x^m‖² − 2 step (l_x − l_x^m),   h^m and l^m its own features and loss
         L = supervised_weight · mean_{x in S} l_x + weight · 2 · sharpness · step · (mean_{x in S} l_x − Σ_x q_x l_x)
         q = softmax over the batch of −sharpness (step² ‖g_x‖² − 2 step² ⟨mean_S g, g_x⟩), without gradient
         At the last layer, with one sample chosen, the gradient is the teacher-aware learner's (omniscient form)
Shapes   o (B, C), h (B, D), h^m (B, D'); scores and q (B,); the batch is that of all ranks
Defaults share 0.9, step 0.1, sharpness 5 (so 2 · sharpness · step = 1), weight 1, supervised_weight 1; all ours. The
         published settings choose 1 of 20, with a factor of 1 to 120
Deviates several samples are chosen; layers below the last learn by the same loss, unless ``train.freeze`` holds them.
         step is what the rule thinks the learning rate is: schedules, momentum and decay are not in it
Guards   a sample without a label, or of which the mentor's loss or features are not finite, is chosen last and not
         taught; equal scores are chosen together
Hurts    few labels: a share of 0.5 ended far below the student alone. Wrong labels: if the mentor fitted them, they are
         chosen. The factor lengthens the step: compare with a student alone of the same effective rate
Cost     the student's step and one mentor's forward with its features; B² (C + D) for inner products
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import Lesson, Needs, Task, Terms
from classroomkd.functional import wide
from classroomkd.functional.teaching import Gradients, imitating_scores
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Positive

__all__ = ["ITAL"]

_PLACE = "@penultimate"


class ITAL(FeatureMethod):
    """Samples that a mentor chooses, and a student that knows of the choice; see the data sheet.

    Args:
        share: of the batch's labelled samples, how many are chosen; one at least.
        step: η, the length of a step that mentor and student think of.
        sharpness: β, how sure the student is that the mentor takes the best.
        weight: factor of the term for the choice.
        supervised_weight: factor of the chosen samples' own loss.
        mentor: a name, a position, or ``best``; ``all``: the mean of their scores.
    """

    label = "ital"
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        share: Annotated[float, Field(gt=0, le=1)] = 0.9,
        step: Positive = 0.1,
        sharpness: Positive = 5.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        mentor: str | int = "best",
    ) -> None:
        super().__init__(mentor, {"supervised": supervised_weight, "aware": weight * 2 * sharpness * step})
        self.share, self.eta, self.beta = share, step, sharpness
        self.needs = Needs(features={_PLACE: "pooled"}, truth=True, whole_batch=True)

    def loss(self, lesson: Lesson) -> Terms:
        """The chosen samples' own loss, and how much less it is than what the student expected to be shown."""
        assert lesson.mentors is not None
        has, losses_B = self._losses(lesson, lesson.student.prediction)
        with torch.no_grad():
            own = _gradients(lesson.task, lesson.student, lesson.target)
            seen = self._scores(lesson, own, losses_B.detach())
            scores = seen.where(has & seen.isfinite(), torch.inf)
            everybody = lesson.all_gather(scores)
            # How many are better; of all ranks, and the same on each.
            place = (everybody.unsqueeze(0) < scores.unsqueeze(1)).sum(1)
            count = (self.share * everybody.isfinite().sum()).ceil().clamp_min(1)
            chosen = scores.isfinite() & (place < count)
            taken = lesson.all_gather(chosen.to(scores.dtype))
            part = 1 / taken.sum().clamp_min(1)
            q = self._expected(lesson, own, taken * part, has)
            ranks = _ranks(lesson, scores)
        first = (losses_B.where(chosen, 0.0)).sum() * part * ranks
        aware = first - (q * losses_B.where(has, 0.0)).sum() * ranks * taken.any()
        units = lesson.task.mask(lesson.target) & chosen.unsqueeze(-1)
        nobody = torch.zeros_like(units)
        active = torch.stack([units if m in self.places else nobody for m in range(self.mentors)])
        return Terms(
            {"supervised": first, "aware": aware},
            self.coefficients,
            weight=active.to(scores.dtype) / len(self.places),
            temperature=torch.ones_like(active, dtype=scores.dtype),
            active=active,
            totals={"aware": torch.ones_like(part)},
        )

    def _losses(self, lesson: Lesson, answer: Tensor) -> tuple[Tensor, Tensor]:
        """Which samples have a label ``(B,)``, and the mean loss of each over its units ``(B,)``."""
        mask = lesson.task.mask(lesson.target)
        own = lesson.task.supervised(answer, lesson.target).where(mask, 0.0)
        return mask.any(-1), own.sum(-1) / mask.sum(-1).clamp_min(1)

    def _scores(self, lesson: Lesson, own: Gradients, losses_B: Tensor) -> Tensor:
        """The mean over the mentors that are asked, ``(B,)``; those whose score is not finite are left out."""
        assert lesson.mentors is not None
        found = []
        for said, read in zip(lesson.mentors.prediction, lesson.mentors.features[_PLACE], strict=True):
            best = self._losses(lesson, said.to(lesson.student.prediction.dtype))[1].to(losses_B.dtype)
            theirs = Gradients(own.outputs, _with_one(wide(read).to(own.features.dtype)))
            found.append(imitating_scores(theirs, losses_B, best, self.eta))
        scores = torch.stack(found)
        known = scores.isfinite()
        mean = scores.where(known, 0.0).sum(0) / known.sum(0).clamp_min(1)
        return mean.where(known.any(0), torch.inf)

    def _expected(self, lesson: Lesson, own: Gradients, share: Tensor, has: Tensor) -> Tensor:
        """q of each sample of this rank, ``(B,)``, summing to 1 over all; ``share`` is 1/|S| in S, of all ranks."""
        outputs, features = lesson.all_gather(own.outputs), lesson.all_gather(own.features)
        along = ((own.outputs @ outputs.mT) * (own.features @ features.mT)) @ share  # ⟨g_x, mean_S g⟩
        says = -self.beta * self.eta**2 * (own.squared_norms() - 2 * along)
        says = says.where(has, -torch.inf)
        every = lesson.all_gather(says)
        top = every.amax()
        raw = (says - top.where(top.isfinite(), 0.0)).exp()
        total = (every - top.where(top.isfinite(), 0.0)).exp().sum()
        return raw / total.clamp_min(torch.finfo(raw.dtype).tiny)


def _gradients(task: Task, answers: Any, target: Tensor) -> Gradients:
    """Of each sample's mean loss in the last layer, which reads the features and a 1."""
    with torch.enable_grad():
        z = wide(answers.prediction.detach()).requires_grad_()
        mask = task.mask(target)
        own = task.supervised(z, target).where(mask, 0.0).sum(-1) / mask.sum(-1).clamp_min(1)
        (outputs,) = torch.autograd.grad(own.sum(), z)
    return Gradients(outputs, _with_one(wide(answers.features[_PLACE].detach()).to(outputs.dtype)))


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def _ranks(lesson: Lesson, like: Tensor) -> Tensor:
    """How many ranks there are, over which losses are averaged."""
    one = like.new_ones(())
    return one if lesson.reduce is None else lesson.reduce(one)
