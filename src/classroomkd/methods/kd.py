"""kd: one mentor at a fixed temperature.

System   Hinton, Vinyals, Dean 2015, arXiv 1503.02531
Rule     L = supervised_weight · CE + weight · T² · mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T))
Shapes   z (B, C); the KL is (B, U) over the task's units, its mean over those mentors may teach, labelled or not
Defaults T 4, weight 0.9, supervised_weight 0.1 (RepDistiller, mdistiller: CIFAR-100). Pose: T 1, on top of the head's
         sharpness
Mentor   by name, by position, or "best" (highest score on the validation part, measured before training; the
         first mentor where nobody measured)
Deviates where the mentor's answer is not finite, or it does not know the class, the KL is 0: it does not teach there
Version  2: the line above (1: it pushed the true class down where it did not know it, and one NaN was the loss's)
Cost     the student's step and one mentor's forward: only the chosen mentor is asked
Hurts    under-trained tiny students; a mentor whose answers on the training data are one-hot adds little
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Weighted

__all__ = ["KD"]


class KD(Weighted):
    """Hinton's distillation from one mentor.

    Args:
        temperature: T > 0.
        weight: factor of the distillation term.
        supervised_weight: factor of the student's own loss.
        mentor: a name, a position, or ``best``; ``all``: the mean over them.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"temperature": 1.0}}

    def __init__(
        self,
        *,
        temperature: Positive = 4.0,
        weight: NonNegative = 0.9,
        supervised_weight: NonNegative = 0.1,
        mentor: Mentor = "best",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.mentor = mentor
