"""fitnet: hints, the student's features brought to each mentor's by a trained projector.

System   FitNets, Romero et al. 2015, arXiv 1412.6550; the one-stage form of RepDistiller
Rule     L = supervised_weight · CE + weight · mean_m mean (r_m(F_s) − F_m)²,   r_m trained, one for each mentor
Shapes   F (B, channels, H, W) at ``tap``; r_m(F_s) has the shape of F_m
Defaults weight 100, supervised_weight 1, tap the last but one stage, one convolution (RepDistiller: CIFAR-100, its map
         2, which is another stage in MobileNetV2 and ResNet-50: see the page). Pose: weight 0.2: at 100 the hints pull
         12 to 26 times as hard as the labels at the start; at 1 a heatmap student still ends behind the student alone
         (5.1 px to 4.7)
Deviates the paper trains its hints first, then distils: ``schedule: {until: …}`` beside kd does both at once until
         then, see the page
Cost     the student's step, M forwards and M small projectors; the maps must be kept for the backward pass
Hurts    when the mentor's features are shaped by a network the student cannot imitate: an early or middle map of
         another architecture; at 100 the hints can drown the labels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson, Needs, Terms
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Tap
from classroomkd.methods.pieces.hints import Hints, ProjectorOrNone

__all__ = ["FitNet"]


class FitNet(FeatureMethod):
    """Hints from one stage.

    Args:
        weight: factor of the hints.
        supervised_weight: factor of the student's own loss.
        tap: where the student is read.
        mentor_tap: where the mentors are read; None = the same place.
        projector: from the student's map to a mentor's; ``none``: channel by channel, where both have as many.
        mentor: ``all``, ``best``, a name, or a position.
    """

    label = "fitnet"
    order_matters = True
    aligned_with: ClassVar[Mapping[str, Any]] = {"projector": "none"}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"weight": 0.2}}

    def __init__(
        self,
        *,
        weight: NonNegative = 100.0,
        supervised_weight: NonNegative = 1.0,
        tap: Tap = "@stage:-2",
        mentor_tap: Tap | None = None,
        projector: ProjectorOrNone = "conv",
        mentor: str | int = "all",
    ) -> None:
        super().__init__(mentor, {"supervised": supervised_weight, "hints": weight})
        self.hints = Hints(tap, projector, mentor_tap)
        self.needs = Needs(features={tap: "map", mentor_tap or tap: "map"})
        self.aligned = ((tap, mentor_tap or tap),) if projector == "none" else ()

    def setup(self, info: ClassInfo) -> None:
        """Build the projectors."""
        super().setup(info)
        self.hints.setup(info, self.places)

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and hint terms."""
        hints: Tensor = self.hints(lesson)  # (M, B)
        return self.terms(lesson, {"hints": lesson.share(hints.mean())})
