"""takd: an assistant of middle size, which a larger mentor has taught, teaches the student.

System   Mirzadeh, Farajtabar, Li, Levine, Matsukawa, Ghasemzadeh, "Improved Knowledge Distillation via Teacher
         Assistant", arXiv 1902.03393, AAAI 2020
Rule     L = supervised_weight · CE + weight · T² · mean_b KL(softmax(z_a / T) ‖ softmax(z_s / T)), a the assistant,
         whom ``kd`` from a larger mentor made by the same rule (``taught_by`` in a recipe)
Shapes   z (B, C); the KL is (B, U) over the task's units
Defaults T 4 (pose: 1), weight λ = 0.5, supervised_weight 1 − λ = 0.5. The released code searches λ in 0.05..1 and T in
         {1, 2, 5, 10, 15, 20} for every pair, so no value of it is a default; 160 to 200 epochs, batch 128, decay 1e-4
Deviates the released divergence is averaged over samples and classes, which makes it C times weaker; here, and in the
         paper's formula, over samples. The released learning rate never takes its first value (its rule compares the
         epoch with half of itself); here it is the recipe's
Mentor   ``last``: the last mentor of the list that was itself taught; or a name, or a position
Cost     the student's step and the assistant's forward; before it, once, the assistant's training with its teacher
Hurts    a chain passes on the teacher's mistakes and the assistant's own; with mentor and student close in size
         plain ``kd`` from the mentor is as good and costs one training less
"""

from __future__ import annotations

from typing import Any, ClassVar

from classroomkd.classroom import ClassInfo, choose
from classroomkd.errors import UserError
from classroomkd.methods.weighted import NonNegative, Positive, Weighted

__all__ = ["TAKD"]


class TAKD(Weighted):
    """Distillation from an assistant.

    Args:
        temperature: T > 0.
        weight: λ, factor of the distilled term.
        supervised_weight: 1 − λ, factor of the student's own loss.
        assistant: ``last`` (the last mentor that was itself taught), a name, or a position.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        temperature: Positive = 4.0,
        weight: NonNegative = 0.5,
        supervised_weight: NonNegative = 0.5,
        assistant: str | int = "last",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.assistant = assistant

    def setup(self, info: ClassInfo) -> None:
        """Find the assistant, who alone teaches."""
        if info.mentors:
            self.mentor = self._place(info)
        super().setup(info)

    def _place(self, info: ClassInfo) -> int:
        """The assistant's; where nobody said who was taught (a loop of your own), it may be anybody's."""
        if self.assistant in ("all", "best"):
            raise UserError(f"takd: assistant is 'last', a name or a position, not '{self.assistant}'")
        taught = list(info.taught) if info.taught is not None else [True] * len(info.mentors)
        if self.assistant == "last" and not any(taught):
            raise UserError(
                "takd: no mentor was taught by another, so there is no assistant; give one of middle size "
                "taught_by: [NAME], the larger mentor's, or use method kd"
            )
        last = max((m for m, was in enumerate(taught) if was), default=0)
        (place,) = (last,) if self.assistant == "last" else choose(info, self.assistant, "takd")
        if not taught[place]:
            raise UserError(
                f"takd: nobody taught mentor '{info.mentors[place]}', so it is no assistant; give it taught_by: NAME, "
                "a larger mentor's, or use method kd"
            )
        return place
