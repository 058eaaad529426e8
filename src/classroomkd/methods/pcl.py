"""pcl: branches of one student learn from their ensemble and from each other's mean teachers, with no mentor.

System   peer collaborative learning (PCL), Wu, Gong, AAAI 2021, arXiv 2006.04147; read in a re-implementation and a
         summary, the paper itself was not
Rule     a trunk and m branches, each a copy of what lies behind ``after``, head included; branch i sees view i of a
         sample
         z_e = W · [f_1 … f_m],   f_i what the head of branch i reads, pooled
         L = Σ_i CE(z_i, y) + CE(z_e, y)
             + w · Σ_i [ weight · T² · KL(p_e ‖ p_i) + mean_weight · mean over j ≠ i of T² · KL(p̄_j ‖ p_i) ]
         p = softmax(z / T);   w = exp(-5 (1 - e/E)²) over ``ramp`` E, then 1
         p_e and p̄_j are targets: no gradient reaches them. Own losses, the ensemble's too, by supervised_weight
Means    p̄_j: an average of the whole of branch j, trunk included: θ̄ ← φ θ̄ + (1 - φ) θ, φ = min(1 - 1/(g + 1), decay)
         at step g, so that the first step copies. It sees view j, and normalises by the batch as in training
Branches the first is the student itself, which is exported: exactly the plain network
Shapes   z (B, C); the KLs are (B, U) over the task's units, their means over those that may be taught, labelled or not
Defaults branches 3, views 3, after @stage:-2, T 3, all weights 1, decay 0.999, ramp 80 of 300 epochs, as a share of the
         training 0.27
Deviates buffers: copy: the averages' running statistics are the network's; the re-implementation leaves them to gather
         their own (``own``). Its ramp divides by a weight in place of the length (see errata), and is not offered.
         ``ensemble: mean``, the mean of the logits, is ours: for answers that are no single vector, as on pose, and to
         compare. ``strength: matched`` has no ramp
Record   none: there are no mentors
Cost     m views: m trunks, branches and averages (views 1: one trunk and m branches, and the averages as before)
Hurts    with few steps: the ramp and the averages take their time; where views differ little, branches become alike
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from classroomkd.classroom import Answers, ClassInfo, Lesson, Needs, StepContext, Terms
from classroomkd.classroom.averaged import Buffers
from classroomkd.errors import UserError
from classroomkd.methods.pieces.branching import Branches, Branching
from classroomkd.methods.pieces.features import NonNegative, Positive, Tap

__all__ = ["PCL"]


class PCL(Branching):
    """Peer collaborative learning; see the data sheet.

    Args:
        branches: m, the student among them.
        after: the place behind which the student is cut.
        views: of each sample in a step: m (None, too), or 1 for all branches.
        temperature: T > 0.
        weight: factor of what a branch learns from the ensemble.
        mean_weight: factor of what it learns from the others' averages; 0: there are none.
        supervised_weight: factor of every branch's own loss, and of the ensemble's.
        ensemble: ``concat``: one linear layer on all branches' features; ``mean``: the mean of their logits; None:
            concat where an answer is one vector a sample.
        decay: the averages' largest φ.
        buffers: their running statistics: ``copy`` the network's, or their ``own``.
        ramp: how long both factors rise: up to 1 a share of the training, above 1 epochs; 0 = they do not.
        tap: the features of ``concat``.

    Raises:
        UserError: other than one or m views.
    """

    needs = Needs(mentors=0, branches=3, views=3, averaged=True)
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "mean_weight": 1.0, "supervised_weight": 1.0, "ramp": 0.0}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"views": 1, "ensemble": "mean"}}

    def __init__(
        self,
        *,
        branches: Branches = 3,
        after: Tap = "@stage:-2",
        views: Annotated[int, Field(ge=1)] | None = None,
        temperature: Positive = 3.0,
        weight: NonNegative = 1.0,
        mean_weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        ensemble: Literal["concat", "mean"] | None = None,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.999,
        buffers: Buffers = "copy",
        ramp: NonNegative = 0.27,
        tap: Tap = "@penultimate",
    ) -> None:
        super().__init__(temperature, weight, supervised_weight, ramp)
        views = branches if views is None else views
        if views not in (1, branches):
            raise UserError(f"pcl: views {views} and branches {branches}: one view for all of them, or one for each")
        self.branches, self.mean_weight, self.form, self.tap = branches, mean_weight, ensemble, tap
        self.decay, self.statistics = decay, buffers
        self.needs = Needs(
            mentors=0,
            branches=branches,
            cut=after,
            views=views,
            averaged=mean_weight > 0,
            features={} if ensemble == "mean" else {tap: "pooled"},
        )
        self.head: nn.Linear | None = None

    def setup(self, info: ClassInfo) -> None:
        """Build the ensemble's layer, where shapes are known.

        Raises:
            UserError: answers that are not one vector a sample, with ``concat``.
        """
        super().setup(info)
        if self.form == "concat" and not info.task.has_vectors:
            raise UserError("pcl: an answer here is not one vector a sample, as concat makes; say ensemble: mean")
        if info.shapes is not None and self.form != "mean" and info.task.has_vectors:
            widths = [info.shapes.student[self.tap][0], *(shape[0] for shape in info.shapes.peers[self.tap])]
            self.head = nn.Linear(sum(widths), info.shapes.classes)

    def together(self, student: Answers, branches: Mapping[str, Answers]) -> Tensor:
        """z_e, ``(B, …)``."""
        everybody = (student, *branches.values())
        if self.head is None:
            return torch.stack([one.prediction for one in everybody]).mean(0)
        features = torch.cat([one.features[self.tap] for one in everybody], 1)
        return self.head(features.to(self.head.weight.dtype)).to(student.prediction.dtype)  # type: ignore[no-any-return]

    def also(self, lesson: Lesson, name: str, factor: float) -> Terms | None:
        """What the averages of the other branches say."""
        others = [other for other in lesson.averaged if other != name]
        if not others:
            return None
        task, prediction = lesson.task, lesson.student.prediction
        said = torch.stack([lesson.averaged[other].to(prediction.dtype) for other in others])
        units = task.distill_mask(lesson.target)
        far = self.temperature**2 * task.divergence(prediction, said, self.temperature)
        each = torch.stack([lesson.mean(one, units) for one in far]) / len(others)
        parts = {other: part.detach() for other, part in zip(others, each, strict=True)}
        total = each.sum()
        return Terms(
            {"means": total},
            {"means": self.mean_weight * factor},
            parts={"means": parts},
        )

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """The averages take in the step."""
        if self.mean_weight > 0:
            context.average(self.decay, self.statistics)
