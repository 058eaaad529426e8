"""Losses of class logits as training computes them: by the methods, on lessons that were never forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from classroomkd import methods, tasks
from classroomkd.classroom import Answers, ClassInfo, Lesson, Method, Shapes

__all__ = ["Taught", "classroom", "distilled", "feature_loss", "lesson", "rule_of"]


class Taught(NamedTuple):
    """What ClassroomKD makes of a batch: scalars, and who taught, ``(M, B)``."""

    loss: Tensor
    supervised: Tensor
    distilled: Tensor
    weight: Tensor
    temperature: Tensor
    active: Tensor


def lesson(student: Tensor, mentors: Tensor, target: Tensor, **more: Any) -> Lesson:
    """A lesson of classification: ``(B, C)``, ``(M, B, C)`` and ``(B,)``."""
    task = tasks.create("classification")
    return Lesson(torch.zeros(len(target), 1), target, Answers(student), Answers(mentors), task, **more)


def built(name: str, mentors: int, shapes: Shapes | None = None, **options: Any) -> Method:
    """A method that was set up for so many mentors."""
    method = methods.create(name, **options)
    if mentors:
        method.setup(ClassInfo(tasks.create("classification"), [f"m{m}" for m in range(mentors)], shapes=shapes))
    return method


def classroom(student: Tensor, mentors: Tensor, target: Tensor, reduce: Any = None, **options: Any) -> Taught:
    """ClassroomKD with these options."""
    method = built("classroomkd", len(mentors), **options)
    taught = lesson(student, mentors, target, reduce=reduce)
    taught.conclude(method(taught))
    assert taught.weight is not None
    assert taught.temperature is not None
    assert taught.active is not None
    values = taught.terms
    record = (taught.weight, taught.temperature, taught.active)
    return Taught(taught.loss, values["supervised"], values["distilled"], *record)


def distilled(name: str, student: Tensor, mentors: Tensor, target: Tensor | None = None, **options: Any) -> Tensor:
    """The mentors' term of a method, without its factor in the loss; ``(B, C)`` mentors are one mentor."""
    mentors = mentors if mentors.dim() > student.dim() else mentors.unsqueeze(0)
    target = torch.zeros(len(student), dtype=torch.int64) if target is None else target
    value: Tensor = built(name, len(mentors), **options).loss(lesson(student, mentors, target)).values["distilled"]
    return value


def rule_of(name: str, **fixed: Any) -> Callable[..., Tensor]:
    """:func:`distilled` of a method as a function ``(student, mentors, target, temperature=4.0, rule=...)``."""

    def function(student: Tensor, mentors: Tensor, target: Tensor, temperature: float = 4.0, **options: Any) -> Tensor:
        return distilled(name, student, mentors, target, temperature=temperature, **{**fixed, **options})

    function.__name__ = name
    return function


def feature_loss(name: str, student: Tensor, mentor: Tensor, **options: Any) -> Tensor:
    """The loss of a method that compares features, without labels, against one mentor."""
    taps = {"taps": ("tap",)} if name == "at" else {"tap": "tap"}
    shapes = Shapes(2, {"tap": tuple(student.shape[1:])}, {"tap": (tuple(mentor.shape[1:]),)})
    method = built(name, 1, shapes, supervised_weight=0.0, **taps, **options)
    size = len(student)
    taught = lesson(student.new_zeros(size, 2), student.new_zeros(1, size, 2), torch.zeros(size, dtype=torch.int64))
    taught.student.features, taught.mentors = {"tap": student}, Answers(taught.mentors.prediction, {"tap": (mentor,)})
    return taught.conclude(method(taught)).loss
