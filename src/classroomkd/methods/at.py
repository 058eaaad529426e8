"""at: attention transfer, where the student looks should be where the mentors look.

System   Zagoruyko, Komodakis 2017, arXiv 1612.03928
Rule     L = supervised_weight · CE + weight · mean_m Σ_taps mean_b,place (A(F_s) − A(F_m))²
         A(F) = the mean over channels of F^p, flattened and brought to length 1 for each sample; of two sizes the
         larger is average-pooled first
Shapes   F (B, channels, H, W) at each tap, any number of channels; A (B, places)
Defaults weight 1000, p 2, the last three stages, supervised_weight 1 (RepDistiller: CIFAR-100; four maps in VGG,
         MobileNetV2 and ResNet-50: see the page). Pose: weight 2: at 1000 the
         maps pull 23 to 78 times as hard as the labels at the start; at 10 a heatmap student still ends behind the
         student alone (5.3 px to 4.7)
Cost     the student's step and M forwards; a mean over each map
Hurts    on small students at the default: 342 times as loud as the labels at the start on a convnet8, 27 on a resnet8
         (20 classes of CIFAR-100), and on drawn figures 26 points below the student alone; between architectures whose
         maps mean different things (MobileNetV2 after VGG-13 ends 5 points below itself alone in RepDistiller's table,
         unverified); at a 1x1 map every attention is 1 and the term is 0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from classroomkd.classroom import Lesson, Needs, Terms
from classroomkd.functional.relations import attention_transfer_by_mentor
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Tap

__all__ = ["AttentionTransfer"]


class AttentionTransfer(FeatureMethod):
    """Attention maps at several stages.

    Args:
        weight: factor of the attention term.
        supervised_weight: factor of the student's own loss.
        taps: where maps are compared, in student and mentors.
        p: the power of an activation.
        mentor: ``all``, ``best``, a name, or a position.
    """

    label = "at"
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"weight": 2.0}}

    def __init__(
        self,
        *,
        weight: NonNegative = 1000.0,
        supervised_weight: NonNegative = 1.0,
        taps: Annotated[tuple[Tap, ...], Field(min_length=1)] = ("@stage:-3", "@stage:-2", "@stage:-1"),
        p: Annotated[float, Field(ge=1)] = 2.0,
        mentor: str | int = "all",
    ) -> None:
        super().__init__(mentor, {"supervised": supervised_weight, "attention": weight})
        self.taps, self.p = tuple(dict.fromkeys(taps)), p
        self.needs = Needs(features=dict.fromkeys(self.taps, "map"))

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and attention terms."""
        assert lesson.mentors is not None
        own, theirs = lesson.student.features, lesson.mentors.features
        far = [attention_transfer_by_mentor(own[tap], theirs[tap], self.p) for tap in self.taps]
        return self.terms(lesson, {"attention": lesson.share(torch.stack(far).sum() / len(self.places))})
