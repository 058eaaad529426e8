"""aekd: the mentors' shortest common gradient decides who counts, one weight a mentor and batch.

System   AEKD, "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", Du et al., NeurIPS 2020;
         its authors' code AnTuo1998/AE-KD at 2b77a74, and Rorozhl/CA-MKD at c2f39a9, which took that over
Rule     L = supervised_weight · CE + weight · Σ_m a_m mean_b D_m
           [+ feature_weight · Σ_m c_m mean_b mean (r_m(F_s) − F_m)²]
         a = argmin ‖Σ_m a_m g_m‖²,  Σ a = 1,  0 <= a_m <= tolerance;  g_m = the batch mean of ∂D_m / ∂z_s  (C)
         c the same with g_m = the batch mean of ∂ mean (r_m(F_s) − F_m)² / ∂F_s  (channels, H, W)
Shapes   a, c (M,), recorded as (M, B, U); D (M, B, U), T² included; F (B, channels, H, W) at ``tap``
Rules    paper      as above; features like logits, at the last stage, from the first step
         reference  on logits the same; on features c is found for h_m / ‖h_m‖, divided by ‖h_m‖ and brought to sum 1
                    (which may pass the tolerance), no hints in the first epoch, last but one stage (hint_layer 2)
         mgda       no tolerance: the shortest mix of all (Sener, Koltun 2018), which AEKD departs from
Defaults T 4, tolerance 0.6, supervised_weight 1; weight 0.9 (paper: the authors' code), 1 (reference: CA-MKD's; mgda);
         features off, feature_weight 100 (the authors' README), one convolution. Pose: T 1, feature_weight 1 (at 100
         the hints pull 17 to 27 times as hard as the labels)
Version  2: paper has the tolerance and 0.9 (1: neither, which is mgda now); reference as released on features
Deviates the code's solver, a support vector machine, stops at its first guess at training sizes (0.6 and 0.4 for the
         first two of 5 mentors, B 64, C 100); ours is exact at any scale. A mentor whose maps leave no gradient has all
         the weight in reference, where the code divides by 0. Gradients by logits in closed form
         where D is KL, by maps in a backward pass through the projectors alone, none through the student; both are
         summed over ranks. Features are refused where the summed gradient is 0 whatever the mentors hold: a
         projector that normalises over the batch, on a map of one place (ours would be decided by rounding alone)
Cost     the student's step and M forwards; a programme of M unknowns on the device; with features 2 backwards through M
         small projectors
Hurts    one weight for a whole batch cannot tell good samples from bad; the shortest mix favours mentors that agree
         with the student already (their gradient is short), whatever they know
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson
from classroomkd.errors import UserError
from classroomkd.functional import wide
from classroomkd.methods.pieces import DivergenceOption
from classroomkd.methods.pieces.hints import Projector
from classroomkd.methods.pieces.sharing import idle_features, shortest, spread, squared_errors
from classroomkd.methods.weighted import NonNegative, Positive, Tap, Weighted

__all__ = ["AEKD"]

WEIGHT = {"paper": 0.9, "reference": 1.0, "mgda": 1.0}  # what null stands for, by rule
TAP = {"paper": "@stage:-1", "reference": "@stage:-2", "mgda": "@stage:-1"}


class AEKD(Weighted):
    """Adaptive ensemble distillation; see the data sheet.

    Args:
        rule: ``paper``, ``reference`` or ``mgda``.
        tolerance: the largest weight a mentor may have; below 1/M it is read as 1/M. ``mgda`` has none.
        temperature: T > 0.
        weight: factor of the distilled term; None = the rule's own.
        supervised_weight: factor of the student's own loss.
        divergence: see ``weighted``.
        features: teach features too, with weights of their own.
        feature_weight: factor of the hints, with ``features``.
        tap: where features are read, in student and mentors; None = the rule's own.
        projector: from the student's features to a mentor's.
    """

    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"temperature": 1.0, "feature_weight": 1.0}}

    def __init__(
        self,
        *,
        rule: Literal["paper", "reference", "mgda"] = "paper",
        tolerance: Annotated[float, Field(gt=0, le=1)] = 0.6,
        temperature: Positive = 4.0,
        weight: NonNegative | None = None,
        supervised_weight: NonNegative = 1.0,
        divergence: DivergenceOption = "kl",
        features: bool = False,
        feature_weight: Positive = 100.0,
        tap: Tap | None = None,
        projector: Projector = "conv",
    ) -> None:
        self.cap = None if rule == "mgda" else tolerance
        self.released = rule == "reference"
        super().__init__(
            weighting={"name": "gram", "cap": self.cap},
            divergence=divergence,
            temperature=temperature,
            weight=WEIGHT[rule] if weight is None else weight,
            supervised_weight=supervised_weight,
        )
        self.teach_features(feature_weight if features else 0.0, tap or TAP[rule], projector, late=self.released)

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: how features are read, when they are not; the tolerance of a rule that has none."""
        idle = []
        if options.get("rule") == "mgda" and options.get("tolerance", 0.6) != 0.6:
            idle.append("tolerance acts only with rule: paper or reference")
        keys = {"feature_weight": 100.0, "tap": None, "projector": "conv"}
        return idle if options.get("features") else idle + idle_features(options, keys, "features: true")

    def setup(self, info: ClassInfo) -> None:
        """See the base; also refuses hints that nothing could weigh."""
        super().setup(info)
        if self.hints is not None and len(info.mentors) > 1:
            _refuse_cancelled(info, self.hints.tap, self.hints.kind)

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """The hints, if asked."""
        if self.hints is None:
            return {}
        assert lesson.mentors is not None
        own, counts = wide(lesson.student.features[self.hints.tap]), known_MBU.any(-1)
        with torch.enable_grad():
            own = own if own.requires_grad else own.detach().requires_grad_()
            maps = [own.view_as(own) for _ in self.hints.projectors]  # one each: one backward pass tells pulls apart
            projected = [projector(x) for projector, x in zip(self.hints.projectors, maps, strict=True)]
            far = squared_errors(projected, lesson.mentors.features[self.hints.tap], counts)  # (M, B)
            # Down to the student's map and no further.
            pulls = torch.stack(torch.autograd.grad(far.sum(), maps, retain_graph=True)).sum(1).flatten(1)
        weight = spread(shortest(pulls, counts.sum(1), self.cap, lesson.reduce, unit=self.released), known_MBU)
        hints = (weight * far.unsqueeze(-1)).sum(0)
        return {"hints": lesson.mean(hints, self.units(lesson))}


def _refuse_cancelled(info: ClassInfo, tap: str, projector: str) -> None:
    """Refuse pulls that cancel over the batch by construction, so that only rounding could tell the mentors apart.

    What a BatchNorm passes back sums to 0 over all it normalises over. On a map of one place that is the batch, and so
    is the sum of which the weights are made.
    """
    if info.shapes is None or projector == "linear":
        return
    own = info.shapes.student[tap]
    for name, theirs in zip(info.mentors, info.shapes.mentors[tap], strict=True):
        # The projector works at the smaller height and width of the two.
        if all(min(sides) == 1 for sides in zip(own[1:], theirs[1:], strict=True)):
            raise UserError(
                f"aekd's features at tap '{tap}' have one place only (student {_size(own)}, mentor '{name}' "
                f"{_size(theirs)}), where the gradients behind projector '{projector}', which normalises over the "
                "batch, sum to 0 whatever the mentors hold, so they cannot weigh them: set projector: linear, or a tap "
                "with a larger map, for instance tap: '@stage:-2'"
            )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
