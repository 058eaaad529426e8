"""dtkd: one temperature for the mentor, one for the student: whoever is sharper is softened more.

System   "Dynamic Temperature Knowledge Distillation", Wei, Bai, arXiv 2404.12711 (2024), and its code. Its authors have
         withdrawn the derivation of formulas (4) and (5) and stand by the measurements
Rule     L = supervised_weight · CE + weight · mean_m mean_b [alpha · T_s T_m · KL(p_m at T_m ‖ p_s at T_s)
                                                                + beta · T² · KL(p_m at T ‖ p_s at T)]
         T_s = 2 T · x_s / (x_s + x_m),  T_m = 2 T · x_m / (x_s + x_m),  x the sample's largest logit, at least 0.001;
         neither below ``floor``
Shapes   x, T_s, T_m (M, B, U); D (M, B, U)
Schedule times min(12 p + 1/20, 1), p the share of the training that is over: a ``warmup`` of 1/12 is built in. At whole
         epochs of 240 it is the released min(epoch/20, 1), counted from 1; ours goes on rising between them
Defaults alpha 3, beta 1, T 4, floor 1, weight 1, supervised_weight 1; (1, 0.5) for resnet56 -> resnet20, resnet110 ->
         resnet32, wrn_40_2 -> wrn_40_1; (2, 0.5) wrn_40_2 -> shufflenetv1; (3, 2) resnet50 -> mobilenetv2 (its code:
         CIFAR-100)
Deviates the floor (``floor: 0``: none, as the code): without it a student whose largest logit is near 0 is read at a
         temperature near 0; x is bounded below, where the code may divide by 0 or have a negative temperature; the mean
         over the chosen mentors, the paper has one. Gradients flow through the temperatures, as in the code
Version  2: floor 1, gradients through the temperatures (1: floor 0, temperatures constant)
Cost     the student's step and a forward for each mentor asked
Hurts    the largest logit depends on a constant added to all logits: a network with shifted or small logits, as after
         label smoothing, gets arbitrary temperatures
"""

from __future__ import annotations

from classroomkd.classroom.schedule import Warmup
from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Weighted

__all__ = ["DTKD"]


class DTKD(Weighted):
    """Dynamic temperature distillation; see the data sheet. The record's temperature is T.

    Args:
        alpha: factor of the part at two temperatures.
        beta: factor of the plain part.
        temperature: T > 0, the mean of the two temperatures.
        detach_temperature: no gradient through the temperatures.
        floor: the least temperature of either; 0 = none, as released.
        weight: factor of both parts.
        supervised_weight: factor of the student's own loss.
        mentor: ``all`` (their mean), ``best``, a name, or a position.
    """

    def __init__(
        self,
        *,
        alpha: NonNegative = 3.0,
        beta: NonNegative = 1.0,
        temperature: Positive = 4.0,
        detach_temperature: bool = False,
        floor: NonNegative = 1.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        mentor: Mentor = "all",
    ) -> None:
        super().__init__(
            divergence={
                "name": "dtkd",
                "alpha": alpha,
                "beta": beta,
                "detach_temperature": detach_temperature,
                "floor": floor,
            },
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
        self.mentor = mentor
        self.schedule = Warmup(epochs=1 / 12)  # 20 of 240 epochs
