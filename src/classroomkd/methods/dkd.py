"""dkd: what a mentor says of the true class against the rest, and of the rest among themselves, weighed apart.

System   "Decoupled Knowledge Distillation", Zhao, Cui, Song, Qiu, Liang, CVPR 2022, arXiv 2203.08679; code mdistiller
Rule     L = supervised_weight · CE + weight · mean_m mean_b T² [alpha · KL(b_m ‖ b_s) + beta · KL(p̂_m ‖ p̂_s)]
         b = (p of the true class, the rest), p̂ = softmax over the wrong classes alone; all at T
Shapes   D (M, B, U), the sum over a joint's distributions; their true class is the bin (cell) nearest the truth, so
         that labelled joints alone are taught
Schedule times min(12 p + 1/20, 1), p the share of the training that is over: a ``warmup`` of 1/12 is built in. At whole
         epochs of 240 it is the released min(epoch/20, 1), counted from 1; ours goes on rising between them
Defaults alpha 1, beta 2, T 4, weight 1, supervised_weight 1 (mdistiller: CIFAR-100, resnet56 -> resnet20 and
         resnet110 -> resnet32). There beta is 8 for resnet32x4 -> resnet8x4, 6 for vgg13 -> vgg8 and wide ResNets
Deviates the paper has one mentor: here the mean over those chosen. A class that a mentor rules out counts as 20 nats
         below its least likely one
Cost     the student's step and a forward for each mentor asked
Version  2: the ramp is counted in shares; 3: beta 2 (8 before)
Hurts    beta is the strength: 8 with a nearly one-hot mentor makes its noise among wrong classes the lesson
"""

from __future__ import annotations

from classroomkd.classroom.schedule import Warmup
from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Weighted

__all__ = ["DKD"]


class DKD(Weighted):
    """Decoupled distillation; see the data sheet.

    Args:
        alpha: factor of the true class against the rest.
        beta: factor of the wrong classes among themselves.
        temperature: T > 0.
        weight: factor of both.
        supervised_weight: factor of the student's own loss.
        mentor: ``all`` (their mean), ``best``, a name, or a position.
    """

    def __init__(
        self,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 2.0,
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        mentor: Mentor = "all",
    ) -> None:
        super().__init__(
            divergence={"name": "dkd", "alpha": alpha, "beta": beta},
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
        self.mentor = mentor
        self.schedule = Warmup(epochs=1 / 12)  # 20 of 240 epochs
