"""weighted: any weighting of the mentors with any divergence; base of kd, average, ebkd, camkd, aekd, dkd, dist, dtkd.

System   the normal form of multi-teacher distillation (no paper of its own)
Rule     L = supervised_weight · CE + weight · Σ_m mean_b w_m(b) D_m(b), Σ_m w_m = 1; D includes T²
         weighting  uniform; entropy (EBKD); confidence (CA-MKD); gram (AEKD); random; best; classroomkd, whose w is its
                    rule's own, times ((T − 1) / T)² for rank, and which gives D its temperatures and has its bound
         divergence kl; dkd; dtkd; dist (lives on the batch: w is then averaged over the samples)
Units    D and its mean run over the units mentors may teach, with a label or without; dkd over those with a label,
         confidence too unless told ``unlabelled: agreement``, classroomkd also over those the mentors agree on
Shapes   w (M, B, U); D (M, B, U) or (M,)
Defaults uniform, kl, T 4, weight 1, supervised_weight 1; pose T 1, also of methods built on this one (at 4 mentors
         pull up to 4.2 times as hard as labels, at 1 up to 1.7). Version 2: T on pose, dtkd's least temperature.
         3: the own values of ``rule: sample`` of weighting classroomkd
Deviates a mentor whose answer on a sample (a joint) is not finite, or who does not know its class (the joint), does not
         count there; the others' weights sum to 1
Cost     the student's step and M forwards; with weighting best, one
Hurts    see the methods that set the pieces
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson, Method, Needs, Terms, choose
from classroomkd.methods.pieces import DivergenceOption, WeightingOption, make_divergence, make_weighting
from classroomkd.methods.pieces.hints import Hints, Projector
from classroomkd.methods.pieces.sharing import heard, weighted_mean

__all__ = ["Mentor", "NonNegative", "Positive", "Tap", "Weighted"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Tap = Annotated[str, Field(min_length=1)]
Mentor = str | int


class Weighted(Method):
    """Weighting × divergence; see the data sheet.

    Args:
        weighting: ``uniform``, ``entropy``, ``confidence``, ``gram``, ``random``, ``best``, ``classroomkd``, or one
            with options.
        divergence: ``kl``, ``dkd``, ``dist``, ``dtkd``, or one with options.
        temperature: T, where neither the divergence nor the weighting sets one.
        weight: factor of the distilled term.
        supervised_weight: factor of the student's own loss.

    Attributes:
        mentor: who teaches: ``all``, ``best``, a name or a position; an option of some. ``chosen``: where, if not all.
        hints: a subclass's projectors, if any; ``late``: they count 0 in the first epoch, as in released code.
    """

    mentor: Mentor = "all"
    late: bool = False
    heard = staticmethod(heard)
    mean = staticmethod(weighted_mean)
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"temperature": 1.0}}

    def __init__(
        self,
        *,
        weighting: WeightingOption = "uniform",
        divergence: DivergenceOption = "kl",
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.weighting = make_weighting(weighting)
        self.divergence = make_divergence(divergence, temperature)
        self.coefficients: dict[str, float | Tensor] = {"supervised": supervised_weight, "distilled": weight}
        self.order_matters = self.weighting.order_matters
        self.weighs_samples = not self.divergence.whole_batch
        self.needs = Needs(
            calibration=self.weighting.calibration,
            distributions=self.weighting.distributions or self.divergence.distributions,
            whole_batch=self.weighting.whole_batch or self.divergence.whole_batch,
            truth=self.divergence.needs_truth or (self.weighting.needs_truth and not self.weighting.by_agreement),
        )
        self.hints: Hints | None = None
        self.mentors = 0
        self.chosen: tuple[int, ...] | None = None

    def teach_features(self, weight: float, tap: str, kind: Projector, heads: bool = False, late: bool = False) -> None:
        """Called in a constructor: a term "hints", from :meth:`more`, with this factor; none where it is 0."""
        if weight > 0:
            self.hints, self.order_matters, self.late = Hints(tap, kind), True, late
            self.coefficients["hints"] = weight
            self.needs = replace(self.needs, features={tap: "map"}, heads=heads, epoch=late)

    def setup(self, info: ClassInfo) -> None:
        """Find who teaches, and build the projectors."""
        super().setup(info)
        self.weighting.setup(info)
        self.mentors = len(info.mentors)
        places = self.weighting.mentor_indices or choose(info, self.mentor, type(self).__name__.lower())
        self.chosen = self.mentor_indices = places if len(places) < self.mentors else None
        if self.hints is not None:
            self.hints.setup(info, self.chosen)

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
        """See the base; the weighting decides, where nothing else reads the mentors."""
        if self.needs.features or type(self).loss is not Weighted.loss:
            return None
        return self.weighting.eligible(knows_MB, ids, step, self.divergence)

    def factor(self, mentors: int) -> float:
        """A factor of all weights, by the number of mentors: some released codes divide by M."""
        return 1.0

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """Further mentors' terms of a subclass, by name; ``known_MBU`` says which mentor counts where."""
        return {}

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised, distilled and further terms."""
        mask, units = lesson.task.mask(lesson.target), self.units(lesson)
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        answers, known = self.heard(lesson, units)
        with torch.no_grad():
            weight, temperature = self.weighting(lesson, answers, known, self.divergence)
            weight = self.factor(len(answers)) * weight.to(own.dtype)
        far = self.divergence(lesson, lesson.student.prediction, answers, known, temperature)
        strength = self.weighting.strength(temperature)
        factor = weight if strength is None else weight * strength.to(own.dtype)
        far = far.where(known, 0.0) if far.dim() > 1 else far
        distilled = self.mean(factor, far, units, lesson, self.weighting.bound)
        record, coefficients = self.placed(weight), self.coefficients
        if self.late and lesson.epoch < 1:  # under several processes every parameter must take part in every step
            coefficients = {**coefficients, "hints": 0.0}
        return Terms(
            {"supervised": lesson.mean(own, mask), "distilled": distilled, **self.more(lesson, known)},
            coefficients,
            weight=record,
            temperature=(
                torch.full_like(record, self.divergence.temperature)
                if temperature is None
                else self.placed(temperature.to(own.dtype))
            ),
            active=self.placed(known & (weight > 0)),
        )

    def units(self, lesson: Lesson) -> Tensor:
        """The units that mentors teach, ``(B, U)`` bool: the labelled ones if labels are read, else all."""
        return lesson.task.mask(lesson.target) if self.divergence.needs_truth else self.weighting.units(lesson)

    def placed(self, record: Tensor) -> Tensor:
        """``(chosen, B, U)`` as ``(M, B, U)``, zero for the other mentors."""
        if self.chosen is None:
            return record
        whole = record.new_zeros((self.mentors, *record.shape[1:]))
        for place, row in zip(self.chosen, record, strict=True):
            whole[place] = row
        return whole
