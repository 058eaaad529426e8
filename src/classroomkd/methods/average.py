"""average: all mentors count the same (AVER), on logits and, if asked, on features (FitNet-MKD).

System   the baseline of multi-teacher papers (You et al. 2017; CA-MKD's and ClassroomKD's "AVER")
Rule     L = supervised_weight · CE + weight · T² · mean_m mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T))
           + feature_weight · mean_m mean (r_m(F_s) − F_m)²,   r_m a trained projector for each mentor
Shapes   z_m (M, B, C), z_s (B, C); the KL is (M, B, U); F (B, channels, H, W) at ``tap``
Defaults T 4 (pose: 1), weight 1, supervised_weight 1, feature_weight 0 (CA-MKD's released loop; its FitNet-MKD has 100)
Deviates the hints are trained: the released FitNet-MKD detaches them, so its published rows are AVER again; mentors
         that do not count on a sample (see ``weighted``) do not count in its hints either
Cost     the student's step and M forwards; with features M small projectors
Hurts    when some mentors are plainly bad: they count as much as the good ones
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from classroomkd.classroom import Lesson
from classroomkd.methods.pieces import DivergenceOption
from classroomkd.methods.pieces.hints import Projector
from classroomkd.methods.pieces.sharing import idle_features, squared_errors
from classroomkd.methods.weighted import NonNegative, Positive, Tap, Weighted

__all__ = ["Average"]


class Average(Weighted):
    """Plain averaging of mentors.

    Args:
        temperature: T > 0.
        weight: factor of the distillation term.
        supervised_weight: factor of the student's own loss.
        divergence: see ``weighted``.
        feature_weight: factor of the hints; 0 = none.
        tap: where features are read, in student and mentors.
        projector: from the student's features to a mentor's.
    """

    def __init__(
        self,
        *,
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        divergence: DivergenceOption = "kl",
        feature_weight: NonNegative = 0.0,
        tap: Tap = "@stage:-1",
        projector: Projector = "conv",
    ) -> None:
        super().__init__(
            divergence=divergence, temperature=temperature, weight=weight, supervised_weight=supervised_weight
        )
        self.teach_features(feature_weight, tap, projector)

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: how features are read, when they are not."""
        keys = {"tap": "@stage:-1", "projector": "conv"}
        return [] if options.get("feature_weight") else idle_features(options, keys, "feature_weight above 0")

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """The hints, if asked."""
        if self.hints is None:
            return {}
        assert lesson.mentors is not None
        counts = known_MBU.any(-1)
        far = squared_errors(self.hints.projected(lesson), lesson.mentors.features[self.hints.theirs], counts)
        taught = self.units(lesson).any(-1)
        return {"hints": lesson.mean(far.sum(0) / counts.sum(0).clamp_min(1), taught)}
