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
Deviates the gate's BatchNorm uses its running statistics on a batch of one. ``strength: matched`` has no ramp
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
from torch.nn import functional as F

from classroomkd.classroom import Answers, ClassInfo, Needs
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
            self.gate = nn.Linear(info.shapes.student[self.after][0], self.branches)

    def together(self, student: Answers, branches: Mapping[str, Answers]) -> Tensor:
        """z_e, ``(B, …)``: the branches' answers, weighted by the gate sample by sample."""
        assert self.gate is not None
        scores = self.gate(student.features[self.after].to(self.gate.weight.dtype))
        alone = self.training and len(scores) == 1  # of one sample there is no spread
        norm = self.norm
        scores = (
            F.batch_norm(scores, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
            if alone
            else norm(scores)
        )
        gates = scores.relu().softmax(1).to(student.prediction.dtype)
        answers = torch.stack([student.prediction, *(one.prediction for one in branches.values())], 1)
        return (gates.view(*gates.shape, *[1] * (answers.dim() - 2)) * answers).sum(1)
