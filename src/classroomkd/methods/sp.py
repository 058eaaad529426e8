"""sp: similarity preserving, samples that are alike to a mentor should be alike to the student.

System   Tung, Mori 2019, arXiv 1907.09682
Rule     L = supervised_weight · CE + weight · mean_m ‖G(F_s) − G(F_m)‖² / B²
         G(F) = the products of all pairs of flattened maps, each row brought to length 1
Shapes   F (B, channels, H, W) at ``tap``, any shape for each network; G (B, B). B counts the samples of all ranks
Defaults weight 3000, supervised_weight 1, the last stage (the released scripts of RepDistiller: CIFAR-100; another map
         in wide ResNets, ShuffleNetV2 and MobileNetV2: see the page). Pose: weight 30: at 3000 it pulls 5
         times as hard as the labels at the start; at 300 a heatmap student still ends behind the student alone (6.3 px
         to 4.7)
Cost     the student's step and M forwards; a product of B² · channels · H · W for each network
Hurts    on small students at the default: 49 times as loud as the labels at the start on a convnet8, 22 on a resnet8
         (20 classes of CIFAR-100), and on drawn figures 17 points below the student alone; in small batches, and after
         a mentor whose last maps are nearly the same for all samples of a class: little is left to preserve that the
         labels do not say
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from classroomkd.classroom import Lesson, Needs, Terms
from classroomkd.functional.relations import similarity_preserving_by_mentor
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Tap

__all__ = ["SimilarityPreserving"]


class SimilarityPreserving(FeatureMethod):
    """Similarities between the samples of a batch.

    Args:
        weight: factor of the similarity term.
        supervised_weight: factor of the student's own loss.
        tap: where maps are read, in student and mentors.
        mentor: ``all``, ``best``, a name, or a position.
    """

    label = "sp"
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"weight": 30.0}}

    def __init__(
        self,
        *,
        weight: NonNegative = 3000.0,
        supervised_weight: NonNegative = 1.0,
        tap: Tap = "@stage:-1",
        mentor: str | int = "all",
    ) -> None:
        super().__init__(mentor, {"supervised": supervised_weight, "similarity": weight})
        self.tap = tap
        self.needs = Needs(features={tap: "map"}, whole_batch=True)

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and similarity terms."""
        assert lesson.mentors is not None
        own = lesson.all_gather(lesson.student.features[self.tap])
        with torch.no_grad():
            theirs = [lesson.all_gather(one) for one in lesson.mentors.features[self.tap]]
        return self.terms(lesson, {"similarity": similarity_preserving_by_mentor(own, theirs).mean()})
