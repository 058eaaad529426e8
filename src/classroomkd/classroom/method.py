"""The base of all methods: from a lesson to named loss terms, or a whole step of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from classroomkd._renamed import OldName, adopt_old_names
from classroomkd.classroom.lesson import Answers, Lesson, Terms
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.schedule import Constant, Schedule
from classroomkd.classroom.step import Batch, StepContext
from classroomkd.classroom.task import Task
from classroomkd.errors import UserError

__all__ = ["ClassInfo", "Composition", "Method", "Shapes", "masked_mean", "union"]


@dataclass(frozen=True)
class Shapes:
    """Shapes of what a method is going to see, without the batch dimension; found by a dry run.

    Attributes:
        classes: C, the size of a prediction.
        student: by tap, ``(channels, H, W)`` of a map or ``(channels,)`` of a pooled one.
        mentors: by tap, the same of every mentor in order.
    """

    classes: int
    student: Mapping[str, tuple[int, ...]]
    mentors: Mapping[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class ClassInfo:
    """What a method may know about its classroom before the first lesson.

    Attributes:
        task: the task.
        mentors: mentors' names, in the order of the M axis.
        scores: each mentor's held-out score (validation accuracy), or None where nobody measured it.
        shapes: what a dry run found; None while a recipe is checked, when nothing is built yet.
        ids, labels: ``(N,)`` of the training samples, where known, for methods that remember every sample.
        taught: by mentor, whether another mentor taught it (an assistant); None where nobody said.
    """

    task: Task
    mentors: Sequence[str]
    scores: Sequence[float] | None = None
    shapes: Shapes | None = None
    ids: Tensor | None = None
    labels: Tensor | None = None
    taught: Sequence[bool] | None = None


class Method(nn.Module):
    """How the mentors teach.

    A subclass sets ``needs`` and implements ``loss(lesson) -> Terms``; its constructor's keyword arguments, with
    their type hints, are its options in recipes. A method with another kind of step overrides :meth:`step`.

    Attributes:
        mentor_indices: places of the only mentors whose answers are read; None = everybody's.
        order_matters: whether it learns something for each mentor's place, so that their order matters.
        period: steps after which the cost of a step repeats (a meta step every five: 5).
        strength: ``native`` keeps the method's own scale; ``matched`` divides every mentors' term by the sum of its
            weights over the mentors (averaged over the units that any mentor teaches): arms then have one strength.
        schedule: factor of the mentors' terms by how far the training is; see :meth:`factor_of`.
        matched: options that ``strength: matched`` sets where the user does not.
        task_defaults: by task, options that have another default there than in the constructor:
            ``{"pose": {"temperature": 1.0}}``. See :meth:`defaults_on`.
    """

    needs: Needs = Needs()
    mentor_indices: tuple[int, ...] | None = None
    order_matters: bool = False
    period: int = 1
    strength: Literal["native", "matched"] = "native"
    schedule: Schedule = Constant()
    matched: ClassVar[Mapping[str, Any]] = {}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    may_teach = OldName("eligible")
    own_parameters = OldName("meta_parameters")
    asks = OldName("mentor_indices")
    by_place = OldName("order_matters")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_old_names(cls)

    @classmethod
    def defaults_on(cls, task: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options that hold on a task where the user gives none; the constructor's own defaults are beneath them.

        Args:
            task: its name; None = not known yet, the constructor's defaults.
            options: what the user gives, for a method whose defaults depend on another option.
        """
        return cls.task_defaults.get(task, {}) if task is not None else {}

    @classmethod
    def renewed(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Options of earlier versions under today's names, and what was read as what, one sentence each."""
        return dict(options), []

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
        """:meth:`loss`, with ``strength`` and ``schedule`` applied to the coefficients of the mentors' terms."""
        terms = self.loss(lesson)
        factor = self.factor_of(lesson)
        if self.strength == "native" and factor == 1.0:
            return terms
        coefficients: dict[str, float | Tensor] = dict(terms.coefficients)
        for name in terms.values:
            if name == "supervised":
                continue
            coefficient = coefficients.get(name, 1.0)
            if self.strength == "matched" and (total := _total(terms, name, lesson.reduce)) is not None:
                coefficient = coefficient / total
            coefficients[name] = coefficient * factor
        return replace(terms, coefficients=coefficients)

    def factor_of(self, lesson: Lesson) -> float:
        """The schedule's factor of a lesson's mentors' terms, and of all that stands for them (virtual steps)."""
        return self.schedule(lesson.epoch, lesson.progress)

    def schedules(self) -> list[Schedule]:
        """Those that act on any mentors' term, of all parts."""
        return [self.schedule]

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
        """Who can count for whom, ``(M, B)`` bool, before anybody is asked: the others need not run. None: all of them.

        Args:
            knows_MB: whether a mentor knows the sample's class.
            ids: sample ids ``(B,)``, where there are any.
            step: of the training.
        """
        return None

    def meta_parameters(self) -> list[nn.Parameter]:
        """Parameters the method updates by an optimiser of its own, in :meth:`after_step`."""
        return []

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
            features=union(needs),
            heads=any(n.heads for n in needs),
            ids=any(n.ids for n in needs),
            epoch=any(n.epoch for n in needs),
            calibration=any(n.calibration for n in needs),
            mentors=max(n.mentors for n in needs),
            sgd=any(n.sgd for n in needs),
            distributions=any(n.distributions for n in needs),
            whole_batch=any(n.whole_batch for n in needs),
        )
        self.order_matters = any(m.order_matters for m in methods)
        self.period = math.lcm(*(m.period for m in methods))
        own = [name for name, m in zip(self.names, methods, strict=True) if type(m).step is not Method.step]
        if own:
            raise UserError(f"method '{own[0]}' has a step of its own and cannot be combined with others")
        idle = [name for name, n in zip(names[1:], needs[1:], strict=True) if n.mentors == 0]
        if idle:
            raise UserError(
                f"method '{idle[0]}' has no mentors' terms, so it adds nothing to '{names[0]}'; only the first method "
                "brings the supervised term"
            )

    def setup(self, info: ClassInfo) -> None:
        """Set up every part; all mentors are asked, and each part is handed the answers it reads."""
        for method in self._parts():
            shapes = info.shapes
            if shapes is not None:
                shapes = replace(
                    shapes,
                    student={tap: _as(kind, shapes.student[tap]) for tap, kind in method.needs.features.items()},
                    mentors={
                        tap: tuple(_as(kind, shape) for shape in shapes.mentors[tap])
                        for tap, kind in method.needs.features.items()
                    },
                )
            method.setup(replace(info, shapes=shapes))

    def meta_parameters(self) -> list[nn.Parameter]:
        """Those of all parts."""
        return [p for method in self._parts() for p in method.meta_parameters()]

    def schedules(self) -> list[Schedule]:
        """See the base."""
        return [schedule for method in self._parts() for schedule in method.schedules()]

    def _parts(self) -> list[Method]:
        return list(self.methods)  # type: ignore[arg-type]

    def loss(self, lesson: Lesson) -> Terms:
        """All terms, those of later methods prefixed by their names, without their supervised parts."""
        first: Terms = self._part(0, lesson)
        values, coefficients = dict(first.values), dict(first.coefficients)
        record = first
        for place, name in enumerate(self.names[1:], start=1):
            terms: Terms = self._part(place, lesson)
            for key, value in terms.values.items():
                if key != "supervised":
                    values[f"{name}.{key}"] = value
                    coefficients[f"{name}.{key}"] = terms.coefficients.get(key, 1.0)
            if record.weight is None:
                record = terms
        return Terms(values, coefficients, record.weight, record.temperature, record.active)

    def _part(self, place: int, lesson: Lesson) -> Terms:
        method = self._parts()[place]
        assert lesson.mentors is not None or method.needs.mentors == 0
        student = Answers(lesson.student.prediction, _seen(method, lesson.student.features))
        mentors, heads, asks = lesson.mentors, lesson.heads, method.mentor_indices
        if mentors is not None:
            mentors = Answers(mentors.prediction, _seen(method, mentors.features))
            mentors = mentors if asks is None else mentors.of(asks)
        if heads is not None and asks is not None:
            heads = partial(_asked_head, heads, asks)
        terms: Terms = method(replace(lesson, student=student, mentors=mentors, heads=heads))
        return terms

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Give every part its turn."""
        for method in self._parts():
            if method.needs.mentors > 0:
                method.after_step(context, lesson)


def _asked_head(
    heads: Callable[[int, str, Tensor], Tensor], asks: Sequence[int], mentor: int, tap: str, value: Tensor
) -> Tensor:
    return heads(asks[mentor], tap, value)


def union(needs: Sequence[Needs]) -> dict[str, Literal["map", "pooled"]]:
    """Taps that anyone reads; a map where anyone wants the map, since it can still be pooled."""
    taps: dict[str, Literal["map", "pooled"]] = {}
    for need in needs:
        for tap, kind in need.features.items():
            taps[tap] = "map" if "map" in (kind, taps.get(tap)) else "pooled"
    return taps


def _as(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] if kind == "pooled" else shape


def _seen(method: Method, features: Mapping[str, Any]) -> dict[str, Any]:
    """The features a part asked for, pooled where it wants them so."""

    def kind(x: Any, want: str) -> Any:
        if isinstance(x, tuple):
            return tuple(kind(y, want) for y in x)
        return x.mean((2, 3)) if want == "pooled" and x.dim() == 4 else x

    return {tap: kind(features[tap], want) for tap, want in method.needs.features.items()}


def _total(terms: Terms, name: str, reduce: Callable[[Tensor], Tensor] | None) -> Tensor | None:
    """What the weights in a term sum to over the mentors: the mean over the units that anyone teaches, over ranks."""
    if name in terms.totals:
        return terms.totals[name].clamp_min(1e-6)
    if terms.weight is None or terms.active is None:
        return None
    sums = torch.stack([terms.weight.sum(), terms.active.any(0).sum().to(terms.weight.dtype)])
    weight, units = (sums if reduce is None else reduce(sums)).unbind()
    return (weight / units.clamp_min(1)).clamp_min(1e-6)


def _distinct(names: Sequence[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        numbered = (name if n == 1 else f"{name}-{n}" for n in range(1, len(names) + 2))
        distinct.append(next(candidate for candidate in numbered if candidate not in distinct))
    return distinct


def masked_mean(values_BU: Tensor, mask_BU: Tensor) -> Tensor:
    """The mean over the units that count, a scalar; 0 when none does."""
    return values_BU.where(mask_BU, 0.0).sum() / mask_BU.sum().clamp_min(1)
