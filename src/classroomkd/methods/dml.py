"""dml: networks that are trained together teach each other, with no mentor.

System   deep mutual learning, Zhang, Xiang, Hospedales, Lu, CVPR 2018, arXiv 1706.00384
Rule     of every trainee k of K:
         L_k = supervised_weight · CE(z_k, y) + weight · mean over j ≠ k of T² · mean_b KL(p_j ‖ p_k),
         p = softmax(z / T)
         another's answer is a target: no gradient reaches it
Order    gauss_seidel: trainee 1 steps and answers again, trainee 2 learns from the new answer, and so on (the paper's
         algorithm); jacobi: all learn from the same answers and step together
Shapes   z (B, C); the KL is (B, U) over the task's units, its mean over those that may be taught, labelled or not
Defaults jacobi, T 1, weight 1, supervised_weight 1 (T and the weights are the paper's); no ramp, which is
         ``schedule: {warmup: {epochs: 0.1}}``
Deviates jacobi is the default, ours: it costs K forward passes a batch in place of 2K − 1. With gauss_seidel the second
         answer to a batch leaves running statistics alone, so that each batch counts once in them
Record   none: there are no mentors
Cost     jacobi: the steps of all K networks; gauss_seidel: and K − 1 forward passes
Hurts    peers that have learned nothing yet teach each other noise (a ramp helps); members of an ensemble become alike,
         so that the ensemble gains less than its members do
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from classroomkd.classroom import Lesson, Needs, Terms
from classroomkd.methods.pieces.mutual import Mutual, Order, by_peers
from classroomkd.methods.weighted import NonNegative, Positive

__all__ = ["DML"]


class DML(Mutual):
    """Deep mutual learning; see the data sheet.

    Args:
        order: ``jacobi`` or ``gauss_seidel``.
        temperature: T > 0.
        weight: factor of what a trainee learns from its peers.
        supervised_weight: factor of every trainee's own loss.
    """

    needs = Needs(mentors=0, peers=(1, None))
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        order: Order = "jacobi",
        temperature: Positive = 1.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(order)
        self.temperature = temperature
        self.coefficients = {"supervised": supervised_weight, "mutual": weight}

    def each(self, lesson: Lesson) -> Terms:
        """One trainee's own loss, and what its peers say."""
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        mutual, parts = by_peers(lesson, self.temperature)
        values = {"supervised": lesson.mean(own, lesson.task.mask(lesson.target)), "mutual": mutual}
        return Terms(values, self.coefficients, parts={"mutual": parts})
