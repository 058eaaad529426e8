"""Whole losses of earlier versions as functions of class logits; they go with the next version.

Training runs the methods, which put the same pieces together for any task: ``ck.methods.create(NAME)`` is the loss
that counts, and what ``tests/golden`` holds. Shapes: M mentors, B samples, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional.baselines import dkd_per_sample
from classroomkd.functional.bound import STEEPEST, restraint
from classroomkd.functional.classroom import Rule, bound_of, grade
from classroomkd.functional.divergence import kd, kl_divergence, log_credibility
from classroomkd.functional.multi_teacher import confidence_weights, entropy_weights, gram_weights, kl_gradients

__all__ = ["ClassroomTerms", "aekd", "average", "camkd", "classroom", "dkd", "ebkd"]

P = ParamSpec("P")
R = TypeVar("R")
TeacherRule = Literal["paper", "reference"]
AEKDRule = Literal["paper", "reference", "mgda"]


class ClassroomTerms(NamedTuple):
    """What :func:`classroom` returns; ``loss = supervised + distilled`` are scalars, the rest is ``(M, B)``."""

    loss: Tensor
    supervised: Tensor
    distilled: Tensor
    weight: Tensor
    temperature: Tensor
    active: Tensor


def _goes(method: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Warn at every call that the function goes, and name the method that is its loss."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            text = f"functional.{function.__name__} goes with the next version: use ck.methods.create('{method}', ...)"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return function(*args, **kwargs)

        return warned

    return decorate


@_goes("classroomkd")
def classroom(
    student_logits: Tensor,
    mentor_logits_MBC: Tensor,
    target: Tensor,
    *,
    rule: Rule = "sample",
    bound: float | None = None,
    **options: Any,
) -> ClassroomTerms:
    """ClassroomKD on ``(B, C)``, ``(M, B, C)`` and ``(B,)``; options as :func:`grade` has them, and ``bound``.

    Its defaults are version 2's: the method's with ``normalise="native", floor=1``.
    """
    student_log = log_credibility(student_logits, target)
    with torch.no_grad():
        mentor_log = log_credibility(mentor_logits_MBC, target)
        # Selected away rather than multiplied by 0: 0 · NaN is NaN.
        safe = torch.where(mentor_log.isnan().unsqueeze(-1), 0.0, mentor_logits_MBC)
    logs = student_log.detach().unsqueeze(-1), mentor_log.to(student_log.dtype).unsqueeze(-1)
    grades = grade(*logs, rule=rule, **options)
    weight, temperature, strength, active = (x.squeeze(-1) for x in grades[:4])
    divergence = kl_divergence(student_logits.unsqueeze(0), safe, temperature)
    cross_entropy = F.nll_loss(torch.log_softmax(student_logits.to(student_log.dtype), -1), target, reduction="none")
    supervised = (grades.supervised.squeeze(-1) * cross_entropy).mean()
    pull = (weight * strength * divergence).sum(0)
    if most := bound_of(rule, bound):
        pull = pull * restraint(pull.unsqueeze(-1), student_logits, most * STEEPEST).squeeze(-1)
    distilled = pull.mean()
    return ClassroomTerms(supervised + distilled, supervised, distilled, weight, temperature, active)


def _distil(student: Tensor, mentors_MBC: Tensor, weight: Tensor, temperature: float) -> Tensor:
    return (weight * kd(student.unsqueeze(0), mentors_MBC, temperature)).sum(0).mean()


def _checked(rule: str, rules: Any = TeacherRule) -> str:
    if rule not in get_args(rules):
        raise UserError(f"rule '{rule}' is not one of {', '.join(get_args(rules))}")
    return rule


@_goes("average")
def average(student_logits: Tensor, mentor_logits_MBC: Tensor, temperature: float = 4.0) -> Tensor:
    """The mean over mentors and samples of :func:`kd`: ``(B, C)`` and ``(M, B, C)`` give a scalar."""
    return kd(student_logits.unsqueeze(0), mentor_logits_MBC, temperature).mean()


@_goes("ebkd")
def ebkd(
    student_logits: Tensor,
    mentor_logits_MBC: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    rule: TeacherRule = "paper",
) -> Tensor:
    """Mentors weighted by :func:`entropy_weights`; ``(B, C)``, ``(M, B, C)``, ``(B,)`` give a scalar."""
    m = len(mentor_logits_MBC)
    factor = (m - 1) / m if _checked(rule) == "reference" and m > 1 else 1.0
    return factor * _distil(student_logits, mentor_logits_MBC, entropy_weights(mentor_logits_MBC), temperature)


@_goes("camkd")
def camkd(
    student_logits: Tensor,
    mentor_logits_MBC: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    rule: TeacherRule = "paper",
) -> Tensor:
    """Mentors weighted by :func:`confidence_weights`; ``(B, C)``, ``(M, B, C)``, ``(B,)`` give a scalar."""
    factor = 1 / len(mentor_logits_MBC) if _checked(rule) == "reference" else 1.0
    weight = confidence_weights(-log_credibility(mentor_logits_MBC.detach(), target))
    return factor * _distil(student_logits, mentor_logits_MBC, weight, temperature)


@_goes("aekd")
def aekd(
    student_logits: Tensor,
    mentor_logits_MBC: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    rule: AEKDRule = "paper",
    tolerance: float = 0.6,
) -> Tensor:
    """Mentors weighted by :func:`gram_weights`; ``(B, C)``, ``(M, B, C)``, ``(B,)`` give a scalar."""
    cap = None if _checked(rule, AEKDRule) == "mgda" else tolerance
    weight = gram_weights(kl_gradients(student_logits, mentor_logits_MBC, temperature), cap)
    return _distil(student_logits, mentor_logits_MBC, weight[:, None], temperature)


@_goes("dkd")
def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """The batch mean of :func:`dkd_per_sample`: ``(B, C)``, ``(B, C)``, ``(B,)`` give a scalar."""
    return dkd_per_sample(student_logits, teacher_logits, target, alpha, beta, temperature).mean()
