"""fpd: a student learns half from the labels and half from one mentor's heatmaps (Fast Pose Distillation).

System   "Fast Human Pose Estimation", Zhang, Zhu, Ye, CVPR 2019, arXiv 1811.05419
Rule     L = supervised_weight · MSE(maps, labels' Gaussians) + weight · MSE(maps, the mentor's maps)
Shapes   maps (B, K, h, w); both errors (B, K), on one scale: half the sum over cells over the energy of a Gaussian. The
         first is averaged over labelled joints, the second over all, so that persons without labels teach too
Defaults weight 0.5, supervised_weight 0.5, the best mentor
Deviates hourglasses compare the maps of every stack; here a network has one answer. Mentors of other heads, input sizes
         or joints are translated into the student's maps first. A student that answers otherwise (SimCC, or heatmaps
         under ``loss: kl``) has no maps to regress: its own loss takes the place of both errors, KL at temperature 1.
         Several mentors, if asked for, count the same
Cost     the student's step and one mentor's forward
Hurts    a mentor's blurred or doubled peaks are copied like the rest; where it is sure of the wrong place, half of the
         loss is
"""

from __future__ import annotations

from typing import Any, ClassVar

from classroomkd.methods.weighted import Mentor, NonNegative, Weighted

__all__ = ["FPD"]


class FPD(Weighted):
    """Fast pose distillation; see the data sheet.

    Args:
        weight: factor of the mentor's part.
        supervised_weight: factor of the labels' part.
        mentor: ``best``, a name, a position, or ``all``.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self, *, weight: NonNegative = 0.5, supervised_weight: NonNegative = 0.5, mentor: Mentor = "best"
    ) -> None:
        super().__init__(temperature=1.0, weight=weight, supervised_weight=supervised_weight)
        self.mentor = mentor
