"""dwpose: one mentor's last map and its bins teach a pose student, less and less (the first of DWPose's two stages).

System   DWPose, "Effective Whole-body Pose Estimation with Two-stages Distillation", Yang, Zeng, Yuan, Li, ICCVW 2023,
         arXiv 2307.15880; as configured in mmpose's ``DWPoseDistiller``
Rule     L = supervised_weight · L_own + weight · T² · mean_b,k [KL over x-bins + KL over y-bins]
           + feature_weight · mean_b Σ_channels,h,w (A(F_s) − F_m)²,   A a trained 1x1 convolution
Shapes   the KL is (B, K), over all joints, labelled or not; F (B, channels, h, w) at ``tap``, the body's last map
Schedule times 1 − epoch / epochs of the run: write ``schedule: {decay: {epochs: 210}}`` with train.epochs in 210's
         place; a method does not know the length of its run, so without it the factor stays 1
Defaults weight 0.1, T 1 on top of the head's beta, feature_weight 7e-5, supervised_weight 1, the best mentor
Deviates stage 2 is left out (the student's body frozen, a fresh head, its own stage-1 answers as the mentor, the KL at
         weight 1): it is another student with another optimiser, not a loss. Maps of another size are resized, and
         equal channels get a convolution too (the code compares them as they are). L_own is the mean over joints of a
         sum over bins; the code's is the sum over the batch of a mean over bins. On heatmaps the KL gives way to the
         head's own comparison (``fpd``'s). Several mentors, if asked for, count the same
Cost     the student's step, one mentor's forward, one convolution
Hurts    7e-5 is of RTMPose's maps: the sum grows with channels, places and the square of the mentor's scale. Without
         the schedule a student ends bound to a map that its head would use better otherwise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from classroomkd.classroom import Lesson
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
        weight: NonNegative = 0.1,
        feature_weight: NonNegative = 7e-5,
        supervised_weight: NonNegative = 1.0,
        tap: Tap = "@stage:-1",
        mentor: Mentor = "best",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.mentor = mentor
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
