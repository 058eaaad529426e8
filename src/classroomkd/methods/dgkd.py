"""dgkd: the teacher and every assistant teach the student at once; at each step some of them, drawn anew, keep silent.

System   DGKD, Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation using Multiple Teacher Assistants", ICCV
         2021, arXiv 2009.08825; code ``wonchulSon/DGKD`` at 2599350
Rule     L = supervised_weight · CE + weight · Σ_m k_m T² · mean_b KL(softmax(z_m / T) ‖ softmax(z_s / T)),
         k_m = 0 for ``drop`` mentors drawn at each step, one draw for the whole batch, and 1 for the others
Shapes   z (B, C); the KL is (M, B, U) over the task's units; k, the record, (M, B, U). Where one who stays does
         not know a unit, the others make up for it
Defaults drop 1, T 5 (pose: 1), λ = weight 1, supervised_weight 1 − λ = 0: the release's, which reads no label
Stages   the largest network from labels; every smaller one, the student last, from all that are larger, by the same
         rule (``taught_by: {mentors: [...], method: dgkd}`` in a recipe). The assistants of ``takd`` serve, too
Deviates the released divergence is averaged over samples and classes, which makes it C times weaker; here over samples.
         At least one mentor stays; the release drops the last one, too. ``normalise: unit`` (ours) divides by how many
         teach, so that more assistants are not louder. Only the code was read, not the paper's body
Draws    a hash of (seed, step, place of the mentor): the same after a resume and on every rank
Cost     the student's step and M forwards (who keeps silent need not run); before it, once, every assistant's training
Hurts    the sum of M − drop mentors is as many times one mentor's pull; a plainly bad one counts as much as the others
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson
from classroomkd.errors import UserError
from classroomkd.functional import draw, wide
from classroomkd.methods.pieces.divergences import Divergence
from classroomkd.methods.pieces.weightings import Weighed, Weighting
from classroomkd.methods.weighted import NonNegative, Positive, Weighted

__all__ = ["DGKD"]

Normalise = Literal["native", "unit"]


class Dropping(Weighting):
    """All mentors count the same, but for those that a step leaves out.

    Args:
        drop: how many; one mentor stays at least.
        seed: of the draws.
    """

    order_matters = True  # a draw belongs to a place

    def __init__(self, drop: int, seed: int) -> None:
        super().__init__()
        self.drop, self.seed = drop, seed

    def setup(self, info: ClassInfo) -> None:
        """See :class:`Weighting`.

        Raises:
            UserError: of several mentors none would stay.
        """
        if self.drop >= len(info.mentors) > 1:
            raise UserError(
                f"dgkd: drop {self.drop} of {len(info.mentors)} mentors leaves nobody to teach; give it a drop below "
                f"{len(info.mentors)}, or more mentors"
            )

    def teachers(self, mentors: int) -> int:
        """How many teach at a step."""
        return max(mentors - self.drop, 1)

    def stays(self, mentors: int, step: int, device: torch.device) -> Tensor:
        """Who teaches at a step, ``(M,)`` bool."""
        luck = draw(torch.arange(mentors, device=device), step, self.seed)
        return luck.argsort().argsort() < self.teachers(mentors)

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`; where none of those who stay knows a unit, nobody teaches it."""
        stay = self.stays(len(known_MBU), lesson.step, known_MBU.device)
        weight = (known_MBU & stay.view(-1, 1, 1)).to(wide(lesson.student.prediction).dtype)
        return Weighed(weight / weight.sum(0).clamp_min(1))

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int, divergence: Divergence) -> Tensor | None:
        """See :class:`Weighting`: those who stay; the others need not run."""
        return knows_MB & self.stays(len(knows_MB), step, knows_MB.device).unsqueeze(-1)


class DGKD(Weighted):
    """Distillation from the teacher and all assistants; see the data sheet.

    Args:
        drop: how many mentors keep silent at a step.
        normalise: ``native``: the mentors' terms are added up; ``unit``: they are averaged.
        seed: of the draws; another one gives other draws with the same batches.
        temperature: T > 0.
        weight: λ, factor of the distilled term.
        supervised_weight: 1 − λ, factor of the student's own loss.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0, "normalise": "unit"}

    def __init__(
        self,
        *,
        drop: Annotated[int, Field(ge=0)] = 1,
        normalise: Normalise = "native",
        seed: Annotated[int, Field(ge=0)] = 0,
        temperature: Positive = 5.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 0.0,
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.weighting: Dropping = Dropping(drop, seed)
        self.order_matters, self.adds_up = True, normalise == "native"

    def factor(self, mentors: int) -> float:
        """See the base: as many as teach, where their terms are added up."""
        return float(self.weighting.teachers(mentors)) if self.adds_up else 1.0
