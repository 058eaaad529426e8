"""ClassroomKD's weighting: who is ahead of the student teaches, as much and as softly as it is ahead.

Shapes: M mentors, B samples, U units. The rules are :func:`classroomkd.functional.grade`'s. The method ``classroomkd``
is this weighting with KL; ``weighted`` takes it beside any divergence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson
from classroomkd.functional import Grades, grade
from classroomkd.functional.classroom import Gate, Normalise, Rule, bound_of, gate_of, shift_of
from classroomkd.methods.pieces.credibility import Credibility, credited
from classroomkd.methods.pieces.divergences import Divergence
from classroomkd.methods.pieces.truth import Unlabelled, truth
from classroomkd.methods.pieces.units import partly, silenced
from classroomkd.methods.pieces.weightings import Weighed, Weighting

__all__ = ["RELEASED", "TAU", "AtLeastOne", "Graded", "NonNegative", "Positive", "Supervised", "usual"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
Supervised = Literal["credibility", "one"]
TAU = 12.0
RELEASED: Mapping[str, Any] = {"normalise": "native", "supervised": "credibility", "floor": 1.0}
OWN: Mapping[Rule, Mapping[str, Any]] = {"sample": {"normalise": "unit", "floor": 2.0}}  # decided by the bench
# On pose nothing was decided yet: as released, but for ``rank`` with temperatures for maps.
ON_TASK: Mapping[str, Mapping[str, Any]] = {"pose": {"tau": 1.0, "fixed_temperature": 1.0}}


def usual(rule: Rule, task: str | None = None) -> dict[str, Any]:
    """What a rule takes for ``normalise``, ``supervised`` and ``floor`` on a task, and a task for ``tau`` and
    ``fixed_temperature``, where nobody says."""
    own = ON_TASK.get(task or "")
    return {**RELEASED, **(OWN.get(rule, {}) if own is None else own if rule != "rank" else {})}


class Graded(Weighting):
    """Filter and mentoring of ClassroomKD.

    Args:
        rule: ``sample``, ``batch`` or ``rank``.
        tau: temperature per unit of relative gap; None = 12, 1 on pose (not ``rank``).
        gate: ``hard`` (may tie), ``strict`` (must beat the student), ``soft``, ``argmax`` (the best mentor only) or
            ``none``; None = ``soft`` where ``soft`` is given, else the rule's own.
        soft: width of a soft gate; None = 0.1.
        normalise: ``native`` leaves the weights, ``unit`` makes them sum to 1 over the active mentors; None = the
            rule's own.
        mentoring: whether the gap sets the temperature.
        fixed_temperature: the temperature without mentoring; None = the rule's own, 1 on pose (not ``rank``).
        floor: the least temperature of mentoring; None = the rule's own.
        bound: see :class:`Weighting`; None = the rule's own.
        credibility: ``train``, ``calibrated`` or ``held_out``.
        unlabelled: on samples without a label all are judged by what the mentors agree on (``agreement``), or nobody
            teaches (``skip``).
    """

    needs_truth = True

    def __init__(
        self,
        *,
        rule: Rule = "sample",
        tau: NonNegative | None = None,
        gate: Gate | None = None,
        soft: Positive | None = None,
        normalise: Normalise | None = None,
        mentoring: bool = True,
        fixed_temperature: Positive | None = None,
        floor: AtLeastOne | None = None,
        bound: NonNegative | None = None,
        credibility: Credibility = "train",
        unlabelled: Unlabelled = "agreement",
    ) -> None:
        super().__init__()
        self.rule: Rule = rule
        self.tau, self.soft, self.mentoring, self.fixed_temperature = tau, soft, mentoring, fixed_temperature
        self.given = {
            key: value for key, value in {"normalise": normalise, "floor": floor}.items() if value is not None
        }
        self.settle()
        self.gate, self.credibility = gate_of(gate, soft), credibility
        self.unlabelled: Unlabelled = unlabelled
        self.by_agreement = unlabelled == "agreement"
        self.bound = bound_of(rule, bound)
        self.whole_batch, self.calibration = rule != "sample", credibility != "train"

    def setup(self, info: ClassInfo) -> None:
        """Take the task's own values where none are given; the method ``classroomkd`` has its own defaults."""
        own = self.settle(info.task.name)
        self.tau = own.get("tau") if self.tau is None else self.tau
        self.fixed_temperature = self.fixed_temperature or own.get("fixed_temperature")

    def settle(self, task: str | None = None) -> Mapping[str, Any]:
        """What is usual on a task, where nothing is given."""
        own = {**usual(self.rule, task), **self.given}
        self.normalise: Normalise = own["normalise"]
        self.floor: float = own["floor"]
        self.supervised: Supervised = own["supervised"]
        return own

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int, divergence: Divergence) -> Tensor | None:
        """A mentor that does not know the class beats no one under the strict gate of ``sample``."""
        strict = self.rule == "sample" and self.gate in (None, "strict")
        return knows_MB if strict and self.credibility == "train" else None

    def units(self, lesson: Lesson) -> Tensor:
        """See :class:`Weighting`: those of which the truth is known, or agreed on."""
        return lesson.task.mask(truth(self.unlabelled, lesson))

    @torch.no_grad()
    def grades(self, lesson: Lesson, mask_BU: Tensor, supervised: Supervised | None = None) -> tuple[Grades, Tensor]:
        """The mentors' grades, and their answers with zeros where they must not be read.

        Args:
            lesson: one with mentors.
            mask_BU: of :meth:`units`.
            supervised: what multiplies the student's own loss; None = the rule's own.
        """
        assert lesson.mentors is not None
        task, answers = lesson.task, lesson.mentors.prediction
        target = truth(self.unlabelled, lesson)
        student_log = task.log_credibility(lesson.student.prediction, target)
        mentor_log = credited(self.credibility, lesson, answers, target).to(student_log.dtype)
        answers = task.blanked(answers, mentor_log.isnan())
        apart = self.rule != "sample" and mask_BU.shape[-1] > 1
        silent = partly(~(mentor_log > -torch.inf)) if apart else None
        grades = grade(
            student_log,
            mentor_log if silent is None else torch.where(silent, student_log, mentor_log),
            mask_BU,
            tau=TAU if self.tau is None else self.tau,
            rule=self.rule,
            gate=self.gate,
            soft=self.soft,
            normalise=self.normalise,
            mentoring=self.mentoring,
            fixed_temperature=self.fixed_temperature,
            floor=self.floor,
            supervised_weight=supervised or self.supervised,
            reduce=lesson.reduce,
        )
        return (grades if silent is None else silenced(grades, silent, self.normalise == "unit")), answers

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`; weights sum to 1 with ``normalise: unit`` alone."""
        grades, _ = self.grades(lesson, self.units(lesson))
        return Weighed(grades.weight.where(known_MBU, 0.0), grades.temperature)

    def strength(self, temperature: Tensor | None) -> Tensor | None:
        """See :class:`Weighting`: ((T − 1) / T)² for ``rank``, whose factor is (T − 1)²."""
        shift = shift_of(self.rule)
        return ((temperature - shift) / temperature) ** 2 if shift and temperature is not None else None
