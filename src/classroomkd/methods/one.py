"""one: branches of one student learn from their gated ensemble, with no mentor.

System   on-the-fly native ensemble (ONE), Lan, Zhu, Gong, NeurIPS 2018, arXiv 1806.04606; rule and defaults as in the
         authors' code
Rule     a trunk and m branches, each a copy of what lies behind ``after``, head included
         g = softmax(ReLU(BN(W · pool(h)))),   h the trunk's map;   z_e = Σ_i g_i z_i
         L = Σ_i [ supervised_weight · CE(z_i, y) + w · weight · T² · mean_b KL(p_e ‖ p_i) ]
             + supervised_weight · CE(z_e, y)
         p = softmax(z / T);   w = exp(-5 (1 - e/E)²) over ``ramp`` E, then 1;   p_e is a target: no gradient reaches it
Branches the first is the student itself, which is exported: exactly the plain network. The others begin with weights of
         their own and are ``branch-2``, ``branch-3``; each answers alone as a plain network on the same trunk, too
Shapes   z (B, C); g (B, m); the KL is (B, U) over the task's units, its mean over those that may be taught, labelled or
         not
Defaults branches 3, after @stage:-2 (before the last stage, as in the authors' CIFAR networks), T 3, both weights 1,
         ramp 80 of 300 epochs, as a share of the training 0.27
Deviates W has no bias, which BN would take off again. BN is over the batch of all ranks, and uses its running
         statistics on a batch of one. ``strength: matched`` has no ramp
Record   none: there are no mentors
Cost     one trunk, m branches, and a trunk of one blank sample for each but the first
Hurts    when the trunk is most of the network, so that branches differ little; with few labels the ensemble knows
         no more than its branches
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from classroomkd.classroom import Answers, ClassInfo, Lesson, Needs
from classroomkd.methods.pieces.branching import Branches, Branching
from classroomkd.methods.pieces.features import NonNegative, Positive, Tap

__all__ = ["ONE"]


class ONE(Branching):
    """On-the-fly native ensemble; see the data sheet.

    Args:
        branches: m, the student among them.
        after: the place behind which the student is cut.
        temperature: T > 0.
        weight: factor of what a branch learns from the ensemble.
        supervised_weight: factor of every branch's own loss, and of the ensemble's.
        ramp: how long the ensemble's factor rises: up to 1 a share of the training, above 1 epochs; 0 = it does not.
    """

    needs = Needs(mentors=0, branches=3)
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0, "ramp": 0.0}

    def __init__(
        self,
        *,
        branches: Branches = 3,
        after: Tap = "@stage:-2",
        temperature: Positive = 3.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        ramp: NonNegative = 0.27,
    ) -> None:
        super().__init__(temperature, weight, supervised_weight, ramp)
        self.needs = Needs(mentors=0, branches=branches, cut=after, features={after: "pooled"})
        self.branches, self.after = branches, after
        self.gate: nn.Linear | None = None
        self.norm = nn.BatchNorm1d(branches)

    def setup(self, info: ClassInfo) -> None:
        """Build the gate, where the trunk's width is known."""
        super().setup(info)
        if info.shapes is not None:
            self.gate = nn.Linear(info.shapes.student[self.after][0], self.branches, bias=False)

    def together(self, student: Answers, branches: Mapping[str, Answers]) -> Tensor:
        """z_e, ``(B, …)``: the branches' answers, weighted by the gate sample by sample."""
        scores = self._scores(student)
        return _weighed(self._normalised(scores, scores, count=False), _stacked(student, branches))

    def joint(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """See the base; the gate normalises by the whole batch, so under ranks the loss is of all samples."""
        scores = self._scores(lesson.student)
        answers = _stacked(lesson.student, lesson.peers)
        if lesson.join is None:
            answer = _weighed(self._normalised(scores, scores), answers)
            own = lesson.task.supervised(answer, lesson.target)
            return answer, lesson.mean(own, lesson.task.mask(lesson.target))
        everybody, target = lesson.all_gather(scores), lesson.all_gather(lesson.target)
        whole = _weighed(self._normalised(everybody, everybody), lesson.all_gather(answers))
        own = lesson.task.supervised(whole, target)
        with torch.no_grad():
            answer = _weighed(self._normalised(scores, everybody, count=False), answers)
        return answer, lesson.mean(own, lesson.task.mask(target))

    def _scores(self, student: Answers) -> Tensor:
        assert self.gate is not None
        scores: Tensor = self.gate(student.features[self.after].to(self.gate.weight.dtype))
        return scores

    def _normalised(self, scores: Tensor, batch: Tensor, count: bool = True) -> Tensor:
        """BN by the statistics of a batch, which ``count`` in the running ones; by these of one sample, or at rest."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        var, mean = norm.running_var, norm.running_mean
        if self.training and len(batch) > 1:
            var, mean = torch.var_mean(batch, 0, correction=0)
            if count:
                with torch.no_grad():
                    norm.running_mean.lerp_(mean, norm.momentum or 0.0)
                    norm.running_var.lerp_(var * len(batch) / (len(batch) - 1), norm.momentum or 0.0)
                    norm.num_batches_tracked += 1
        return (scores - mean) * (var + norm.eps).rsqrt() * norm.weight + norm.bias


def _stacked(student: Answers, branches: Mapping[str, Answers]) -> Tensor:
    """The branches' answers, ``(B, m, …)``."""
    return torch.stack([student.prediction, *(one.prediction for one in branches.values())], 1)


def _weighed(scores: Tensor, answers: Tensor) -> Tensor:
    """Answers ``(B, m, …)`` in shares by their scores ``(B, m)``."""
    gates = scores.relu().softmax(1).to(answers.dtype)
    return (gates.view(*gates.shape, *[1] * (answers.dim() - 2)) * answers).sum(1)
