"""The base of all methods: from a lesson to named loss terms, or a whole step of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from classroomkd.classroom.lesson import Lesson, Terms
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.step import Batch, StepContext
from classroomkd.classroom.task import Task
from classroomkd.errors import UserError

__all__ = ["ClassInfo", "Composition", "Method"]


@dataclass(frozen=True)
class ClassInfo:
    """What a method may know about its classroom before the first lesson.

    Attributes:
        task: the task.
        mentors: mentors' names, in the order of the M axis.
        scores: each mentor's held-out score (validation accuracy), or None where nobody measured it.
    """

    task: Task
    mentors: Sequence[str]
    scores: Sequence[float] | None = None


class Method(nn.Module):
    """How the mentors teach.

    A subclass sets ``needs`` and implements ``loss(lesson) -> Terms``; its constructor's keyword arguments, with
    their type hints, are its options in recipes. A method with another kind of step overrides :meth:`step`.
    """

    needs: Needs = Needs()
    asks: tuple[int, ...] | None = None  # places of the only mentors whose answers are read; None = everybody's

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """Options that differ from their default and act on nothing beside the others, one sentence each."""
        return []

    def setup(self, info: ClassInfo) -> None:
        """Called once when the classroom is built; raise ``UserError`` for what cannot work."""
        if len(info.mentors) < self.needs.mentors:
            raise UserError(f"method '{type(self).__name__}' needs at least {self.needs.mentors} mentor(s), got none")

    def loss(self, lesson: Lesson) -> Terms:
        """Named, unweighted terms of a complete lesson."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss(lesson)")

    def forward(self, lesson: Lesson) -> Terms:
        """The same as :meth:`loss`, so that hooks and compilation see it."""
        return self.loss(lesson)

    def step(self, context: StepContext, batch: Batch) -> Lesson:
        """One unit of training: complete the lesson, turn it into terms, go backward, update."""
        lesson = context.lesson(batch)
        lesson.conclude(self(lesson))
        context.backward(lesson.loss)
        context.update()
        self.after_step(context, lesson)
        return lesson

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Called after the student's update; a meta-learned weighting does its own update here."""


class Composition(Method):
    """Several methods at once: the first brings the supervised term and the record, the others add their terms.

    Args:
        methods: the parts.
        names: theirs, which prefix the terms of all but the first; a name that comes again is numbered (``average-2``).
    """

    def __init__(self, methods: Sequence[Method], names: Sequence[str]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.names = [names[0], *_distinct(names[1:])]
        needs = [m.needs for m in methods]
        self.needs = Needs(
            features={k: v for n in needs for k, v in n.features.items()},
            ids=any(n.ids for n in needs),
            epoch=any(n.epoch for n in needs),
            calibration=any(n.calibration for n in needs),
            mentors=max(n.mentors for n in needs),
        )
        own = [name for name, n in zip(self.names, needs, strict=True) if n.own_step]
        if own:
            raise UserError(f"method '{own[0]}' has a step of its own and cannot be combined with others")

    def setup(self, info: ClassInfo) -> None:
        """Set up every part; all mentors are asked, and each part is handed the answers it reads."""
        for method in self.methods:
            method.setup(info)  # type: ignore[operator]

    def loss(self, lesson: Lesson) -> Terms:
        """All terms, those of later methods prefixed by their names, without their supervised parts."""
        total: Terms = self._part(0, lesson)
        total.values, total.coefficients = dict(total.values), dict(total.coefficients)
        for place, name in enumerate(self.names[1:], start=1):
            terms: Terms = self._part(place, lesson)
            for key, value in terms.values.items():
                if key != "supervised":
                    total.values[f"{name}.{key}"] = value
                    total.coefficients[f"{name}.{key}"] = terms.coefficients.get(key, 1.0)
            if total.weight is None:
                total.weight, total.temperature, total.active = terms.weight, terms.temperature, terms.active
        return total

    def _part(self, place: int, lesson: Lesson) -> Terms:
        method = self.methods[place]
        if method.asks is not None and lesson.mentors is not None:
            lesson = replace(lesson, mentors=lesson.mentors.of(list(method.asks)))  # type: ignore[arg-type]
        terms: Terms = method(lesson)
        return terms

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Give every part its turn."""
        for method in self.methods:
            method.after_step(context, lesson)  # type: ignore[operator]


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        numbered = (name if n == 1 else f"{name}-{n}" for n in range(1, len(names) + 2))
        found.append(next(candidate for candidate in numbered if candidate not in found))
    return found


def masked_mean(values_BU: Tensor, mask_BU: Tensor) -> Tensor:
    """The mean over the units that count, a scalar; 0 when none does."""
    return values_BU.where(mask_BU, 0.0).sum() / mask_BU.sum().clamp_min(1)
