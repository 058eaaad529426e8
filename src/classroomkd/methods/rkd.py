"""rkd: relational distillation, distances and angles between samples should be the mentors'.

System   Park et al. 2019, arXiv 1904.05068
Rule     L = supervised_weight · CE + weight · mean_m [ distance · huber(d_s, d_m) + angle · huber(a_s, a_m) ]
         d = distances between samples over their mean; a = cosines at each corner of each triple; huber at 1, the mean
Shapes   features (B, D) at ``tap``, of any width; d (B, B); a (B, B, B). B counts the samples of all ranks
Defaults weight 1, distance 25, angle 50, supervised_weight 1, the classifier's input (RepDistiller: CIFAR-100).
         Pose: weight 0.003: at 1 both terms have 4 to 10 times the labels' gradient at the start; at 0.05 a heatmap
         student still ends behind the student alone (7.8 px to 4.7)
Cost     the student's step and M forwards; angles need B² · D + B³ numbers: 1 and 0.3 million at B = 64 and D = 256
Hurts    on small students at the default: 20 times as loud as the labels at the start on a convnet8, 27 on a resnet8
         (20 classes of CIFAR-100), and on drawn figures 15 points below the student alone; in small batches, which hold
         few relations (none at B = 1: both terms are 0); among mentors that place samples differently, since the mean
         asks for all of their geometries at once
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from classroomkd.classroom import Lesson, Needs, Terms
from classroomkd.functional.relations import rkd_angle_by_mentor, rkd_distance_by_mentor
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Tap

__all__ = ["RKD"]


class RKD(FeatureMethod):
    """Distances and angles between the samples of a batch.

    Args:
        weight: factor of both terms.
        supervised_weight: factor of the student's own loss.
        distance: factor of the distances, inside ``weight``.
        angle: factor of the angles, inside ``weight``.
        tap: where features are read, pooled, in student and mentors.
        mentor: ``all``, ``best``, a name, or a position.
    """

    label = "rkd"
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"weight": 0.003}}

    def __init__(
        self,
        *,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        distance: NonNegative = 25.0,
        angle: NonNegative = 50.0,
        tap: Tap = "@penultimate",
        mentor: str | int = "all",
    ) -> None:
        super().__init__(
            mentor, {"supervised": supervised_weight, "distance": weight * distance, "angle": weight * angle}
        )
        self.tap = tap
        self.needs = Needs(features={tap: "pooled"}, whole_batch=True)

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised, distance and angle terms."""
        assert lesson.mentors is not None
        own = lesson.all_gather(lesson.student.features[self.tap])
        with torch.no_grad():
            theirs = [lesson.all_gather(one) for one in lesson.mentors.features[self.tap]]
        relations = {"distance": rkd_distance_by_mentor, "angle": rkd_angle_by_mentor}
        wanted = {name: far for name, far in relations.items() if self.coefficients[name] > 0}
        return self.terms(lesson, {name: far(own, theirs).mean() for name, far in wanted.items()})
