"""dwpose: one mentor's last map and its bins teach a pose student, less and less (the first of DWPose's two stages).

System   DWPose, "Effective Whole-body Pose Estimation with Two-stages Distillation", Yang, Zeng, Yuan, Li, ICCVW 2023,
         arXiv 2307.15880; as configured in mmpose's ``DWPoseDistiller``
Rule     L = supervised_weight · L_own + (1 − p) · { weight · T² · mean_b,k [KL over x-bins + KL over y-bins]
           + feature_weight · mean_b Σ_channels,h,w (A(F_s) − F_m)² },   A a trained 1x1 convolution, p the share of the
         training that is over
Shapes   the KL is (B, K), over all joints, labelled or not; F (B, channels, h, w) at ``tap``, the body's last map
Schedule ``{decay: {epochs: 1}}`` is built in: 1 − p, from step to step (the code: from epoch to epoch)
Defaults weight 0.69, feature_weight 4.8e-4, supervised_weight 1, T 1 on top of the head's beta, the best mentor. The
         code has 0.1 and 7e-5 beside an own loss that is the sum over a device's batch of the mean over an axis' bins;
         ours is the mean of the sum. With B persons and X and Y bins its own loss is B (1/X + 1/Y) / 2 of ours, so the
         factors are times 2 / (B (1/X + 1/Y)): 6.9 for B 64 (its configurations) and 384 and 512 bins (256 x 192); 1.7
         for B 256
Deviates stage 2 is left out (the student's body frozen, a fresh head, its own stage-1 answers as the mentor, the KL at
         weight 1): it is another student with another optimiser, not a loss. Maps of another size are resized, and
         equal channels get a convolution too (the code compares them as they are). On heatmaps the KL gives way to the
         head's own comparison (``fpd``'s). Several mentors, if asked for, count the same
Cost     the student's step, one mentor's forward, one convolution
Hurts    4.8e-4 is of RTMPose's maps: the sum grows with channels, places and the square of the mentor's scale. With
         ``schedule: constant`` a student ends bound to a map that its head would use better otherwise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from classroomkd.classroom import Lesson
from classroomkd.classroom.schedule import Decay
from classroomkd.methods.pieces.sharing import idle_features, squared_errors
from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Tap, Weighted

__all__ = ["DWPose"]


class DWPose(Weighted):
    """Stage 1 of DWPose; see the data sheet.

    Args:
        temperature: T > 0, on top of the head's sharpness.
        weight: factor of the bins' divergence.
        feature_weight: factor of the summed squared error of maps; 0 = none.
        supervised_weight: factor of the student's own loss.
        tap: where maps are compared, in student and mentor.
        mentor: ``best``, a name, a position, or ``all``.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        temperature: Positive = 1.0,
        weight: NonNegative = 0.69,
        feature_weight: NonNegative = 4.8e-4,
        supervised_weight: NonNegative = 1.0,
        tap: Tap = "@stage:-1",
        mentor: Mentor = "best",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.mentor = mentor
        self.schedule = Decay(epochs=1)
        self.teach_features(feature_weight, tap, "linear")

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: where features are read, when they are not."""
        keys = {"tap": "@stage:-1"}
        return [] if options.get("feature_weight", 1) else idle_features(options, keys, "feature_weight above 0")

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """The maps' term."""
        if self.hints is None:
            return {}
        assert lesson.mentors is not None
        projected, counts = self.hints.projected(lesson), known_MBU.any(-1)
        means = squared_errors(projected, lesson.mentors.features[self.hints.tap], counts)  # (M, B)
        sums = sum(mean * ours[0].numel() for mean, ours in zip(means, projected, strict=True))
        assert isinstance(sums, Tensor)
        return {"hints": lesson.mean(sums / counts.sum(0).clamp_min(1), self.units(lesson).any(-1))}
