"""camkd: mentors near the label count more, on logits and, through their own classifiers, on features.

System   CA-MKD, "Confidence-Aware Multi-teacher Knowledge Distillation", Zhang, Chen, Wang, ICASSP 2022,
         arXiv 2201.00007; code Rorozhl/CA-MKD at c2f39a9
Rule     L = supervised_weight · CE + weight · mean_b Σ_m w_m D_m
           + feature_weight · mean_b Σ_m v_m mean (r_m(F_s) − F_m)²
         w_m = (1 − softmax_m CE_m) / (M − 1): the softmax over mentors of their own cross-entropies, per sample;
         v_m the same with the cross-entropies that the mentors' classifiers find for r_m(F_s)
Shapes   w, v (M, B, U), both sum to 1 over M; D (M, B, U), T² included; F (B, channels, H, W) at ``tap``
Rules    paper      as above; v is a constant for autograd; features from the first step
         reference  w and v are divided by M once more; gradients flow through v; no hints in the first epoch
Scale    paper keeps 1 and 50 without the code's 1/M, so both terms are M times any released run's (whose README's 50 is
         50 / M); with M mentors ``weight`` 1 / M and ``feature_weight`` 50 / M are its strength
Defaults T 4, weight 1, supervised_weight 1, feature_weight 50, last stage, one convolution (its README).
         Pose: T 1, feature_weight 0: at 50 the hints pull 8 (SimCC) to 14 times (heatmaps) as hard as the labels, and
         a heatmap student ended at 6.5 px where alone has 4.4
No label nobody teaches such a sample (``skip``); with ``agreement`` (ours, not the paper's) the class of the largest
         mean of the mentors' probabilities at T = 1 stands for its label in w and v; its CE stays 0
Deviates one mentor has w = v = 1 (the code divides by 0 there); every projector sees the student's map itself (the code
         hands mentor k the map resampled for mentor k − 1); any architecture can be a mentor; the paper's body was not
         available: what rule paper says beside the abstract is the code without its scale factors
Cost     the student's step, M forwards, M projectors, M classifiers on B maps (backwards too under ``reference``)
Hurts    mentors that memorised the training set are all near the label, and w is 1/M; with three mentors none can have
         more than 1/2: the rule puts the worst aside, it does not pick the best; 50 is of this tap's scale
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from classroomkd.classroom import Lesson
from classroomkd.functional import confidence_weights, wide
from classroomkd.methods.pieces import DivergenceOption
from classroomkd.methods.pieces.hints import Projector
from classroomkd.methods.pieces.sharing import idle_features, squared_errors
from classroomkd.methods.pieces.truth import Unlabelled, truth
from classroomkd.methods.weighted import NonNegative, Positive, Tap, Weighted

__all__ = ["CAMKD"]


class CAMKD(Weighted):
    """Confidence-aware multi-teacher distillation; see the data sheet.

    Args:
        rule: ``paper`` or ``reference``.
        temperature: T > 0.
        weight: factor of the distilled term.
        supervised_weight: factor of the student's own loss.
        divergence: see ``weighted``.
        feature_weight: factor of the hints; 0 = none.
        tap: where features are read, in student and mentors; each mentor's prediction must follow from it.
        projector: from the student's features to a mentor's.
        unlabelled: on samples without a label nobody teaches (``skip``), or what the mentors agree on counts as true
            (``agreement``).
    """

    later = ("unlabelled",)
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pose": {"temperature": 1.0, "feature_weight": 0.0, "unlabelled": "agreement"}
    }

    def __init__(
        self,
        *,
        rule: Literal["paper", "reference"] = "paper",
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        divergence: DivergenceOption = "kl",
        feature_weight: NonNegative = 50.0,
        tap: Tap = "@stage:-1",
        projector: Projector = "conv",
        unlabelled: Unlabelled = "skip",
    ) -> None:
        self.unlabelled: Unlabelled = unlabelled
        super().__init__(
            weighting={"name": "confidence", "unlabelled": unlabelled},
            divergence=divergence,
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
        self.released = rule == "reference"
        self.teach_features(feature_weight, tap, projector, heads=True, late=self.released)

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: how features are read, when they are not."""
        keys = {"tap": "@stage:-1", "projector": "conv"}
        return [] if options.get("feature_weight", 50.0) else idle_features(options, keys, "feature_weight above 0")

    def factor(self, mentors: int) -> float:
        """See the base: the released code averages over mentors what is weighted already."""
        return 1 / mentors if self.released else 1.0

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """The hints."""
        if self.hints is None:
            return {}
        assert lesson.mentors is not None
        projected, counts = self.hints.projected(lesson), known_MBU.any(-1)
        far = squared_errors(projected, lesson.mentors.features[self.hints.tap], counts)
        weight = self.reliance(lesson, projected, known_MBU)
        hints = (weight * far.unsqueeze(-1)).sum(0)
        return {"hints": self.factor(len(weight)) * lesson.mean(hints, self.units(lesson))}

    def reliance(self, lesson: Lesson, projected: list[Tensor], known_MBU: Tensor) -> Tensor:
        """v ``(M, B, U)``: how near the label each mentor's classifier is when it reads the student's features."""
        assert self.hints is not None
        with torch.set_grad_enabled(self.released and torch.is_grad_enabled()):
            each = []
            for m, (value, counts) in enumerate(zip(projected, known_MBU.any(-1), strict=True)):
                # A broken mentor's classifier would send NaN back: what goes in there is a constant.
                seen = torch.where(counts.view(-1, 1, 1, 1), value, 0.0)
                each.append(wide(lesson.head(m, self.hints.tap, seen)))
            answers, target = torch.stack(each), truth(self.unlabelled, lesson)
            answers = lesson.task.blanked(answers, lesson.task.log_credibility(answers.detach(), target).isnan())
            loss = -lesson.task.log_credibility(answers, target)
            return _turned(loss, known_MBU) if self.released else confidence_weights(loss, known_MBU)


def _turned(loss_MBU: Tensor, known_MBU: Tensor) -> Tensor:
    """:func:`confidence_weights`, differentiable in the losses."""
    n = known_MBU.sum(0)
    share = torch.softmax(torch.where(known_MBU, loss_MBU, -torch.inf), 0)  # NaN where nobody counts, selected away
    return torch.where(known_MBU, torch.where(n > 1, (1 - share) / (n - 1).clamp_min(1), 1.0), 0.0)
