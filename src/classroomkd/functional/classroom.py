"""ClassroomKD's rules as pure functions: who may teach, how strongly, at which temperature.

Shapes: M mentors, B samples, U units a sample (1 class decision, K keypoints), C classes.
``grade`` knows no task: it sees log-credibilities only.
Formulas: ``docs/methods/classroomkd.md``; released rules checked against the authors' numbers in ``tests/golden``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nextafter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from classroomkd._renamed import warn_old_name
from classroomkd.errors import UserError
from classroomkd.functional.bound import STEEPEST, restraint
from classroomkd.functional.constants import constant

__all__ = [
    "STEEPEST",
    "Gate",
    "Grades",
    "Normalise",
    "Rule",
    "bound_of",
    "gate_of",
    "grade",
    "python_round2",
    "restraint",
    "shift_of",
]

Rule = Literal["sample", "batch", "rank"]
Gate = Literal["hard", "strict", "soft", "argmax", "none"]
Normalise = Literal["native", "unit"]
SOFT = 0.1  # the width of a soft gate of which none is given
BOUND = 1.0  # of ``sample``; see ``docs/methods/classroomkd.md``
Reduce = Callable[[Tensor], Tensor]


class Grades(NamedTuple):
    """What :func:`grade` returns; constants for autograd."""

    weight: Tensor  # (M, B, U), 0 where inactive
    temperature: Tensor  # (M, B, U), >= 1; 1 where the gap is 0
    strength: Tensor  # (M, B, U), what multiplies the divergence at that temperature (T², or (T-1)² for `rank`)
    active: Tensor  # (M, B, U) bool
    supervised: Tensor  # (B, U), what multiplies the student's own loss


class _Standing(NamedTuple):
    """How the mentors stand against the student, by one rule; every field broadcasts to (M, B, U)."""

    weight: Tensor
    student: Tensor  # what is compared to decide who is ahead
    mentors: Tensor
    lead: Callable[[], Tensor]  # by how much, for a soft gate: the difference of credibilities, shares or ranks
    gap: Tensor
    supervised: Tensor  # broadcasts to (B, U)


@dataclass(frozen=True)
class _RuleSpec:
    stand: Callable[[Tensor, Tensor, Tensor, Reduce | None], _Standing]
    gate: Gate
    shift: float  # the divergence is multiplied by (T - shift)²
    neutral: Callable[[int], float]  # every mentor's weight when filtering is off
    fixed: Callable[[float], float]  # the temperature when mentoring is off, from tau
    bound: float  # of the mentors' pull on a unit, in longest pulls of its label; 0 = none


# The smallest double that Python's round(x, 2) lifts to (k + 1) / 100: rounding half is decided on the exact
# decimal value there, which x * 100 on the device would get wrong in the last bit.
_TIES = [(k + 0.5) / 100 for k in range(100)]
_STEPS = tuple(t if round(t, 2) == (k + 1) / 100 else nextafter(t, 1.0) for k, t in enumerate(_TIES))


def python_round2(x: Tensor) -> Tensor:
    """Round values in [0, 1] to two decimals exactly as Python's ``round(x, 2)`` does, on the tensor's device."""
    return torch.bucketize(x, constant(_STEPS, x.dtype, x.device), right=True).to(x.dtype) / 100


def _exact(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # MPS has no float64


def _mean_over_batch(values_KBU: Tensor, mask: Tensor, reduce: Reduce | None) -> Tensor:
    """The mean over valid (sample, unit) pairs of all ranks, (K,); one collective for sums and count together."""
    values = torch.where(mask, _exact(values_KBU), 0.0)
    sums = torch.cat([values.flatten(1).sum(1), mask.sum().to(values.dtype).reshape(1)])
    if reduce is not None:
        sums = reduce(sums)
    return sums[:-1] / sums[-1].clamp_min(1)


def _sample(student: Tensor, mentors: Tensor, mask: Tensor, reduce: Reduce | None) -> _Standing:
    # In logs: a probability below 1e-45 is 0 in float32, so of a student at -300 nats nobody would be ahead.
    student = student.clamp_min(torch.finfo(student.dtype).min)  # -inf - -inf is NaN
    mentors = mentors.nan_to_num(-torch.inf, neginf=-torch.inf)
    share = torch.cat([student.unsqueeze(0), mentors]).softmax(0)[1:]
    gap = torch.expm1(student - mentors).neg().clamp(0.0, 1.0)
    s = student.exp()
    return _Standing(len(mentors) * share, student, mentors, lambda: mentors.exp() - s, gap, s)


def _batch(student: Tensor, mentors: Tensor, mask: Tensor, reduce: Reduce | None) -> _Standing:
    scores = _mean_over_batch(torch.cat([student.unsqueeze(0), mentors]), mask, reduce).exp()
    g_s, g_m = scores[0], scores[1:].nan_to_num(0.0)
    total = (g_s + g_m.sum()).clamp_min(torch.finfo(scores.dtype).tiny)
    n = len(g_m)
    w_s, w_m = n * python_round2(g_s / total), n * python_round2(g_m / total)
    top = torch.maximum(w_m, w_s)
    gap = ((w_m - w_s) / top.clamp_min(torch.finfo(scores.dtype).tiny)).clamp_min(0.0)
    w_m, gap = w_m[:, None, None], gap[:, None, None]
    return _Standing(w_m, w_s, w_m, lambda: w_m - w_s, gap, g_s)


def _rank(student: Tensor, mentors: Tensor, mask: Tensor, reduce: Reduce | None) -> _Standing:
    scores = _mean_over_batch(torch.cat([student.unsqueeze(0), mentors]).exp(), mask, reduce)
    own = scores[0]
    scores = scores.nan_to_num(0.0)
    position = scores.argsort(stable=True).argsort() + 1
    r = position.to(scores.dtype) / 10
    r_m = r[1:, None, None]
    return _Standing(r_m, r[0], r_m, lambda: r_m - r[0], (r_m - r[0]).abs(), own)


_RULES: dict[str, _RuleSpec] = {
    "sample": _RuleSpec(_sample, "strict", 0.0, lambda n: 1.0 / max(n, 1), lambda tau: 4.0, BOUND),
    "batch": _RuleSpec(_batch, "hard", 0.0, lambda n: 1.0, lambda tau: 1.0, 0.0),
    "rank": _RuleSpec(_rank, "strict", 1.0, lambda n: 1.0, lambda tau: 1.0 + 0.1 * tau, 0.0),
}


def gate_of(gate: Gate | bool | None, soft: float | None = None, strict: bool | None = None) -> Gate | None:
    """A gate under today's name: ``gate`` was a switch, ``strict`` an option of its own, ``soft`` turned it soft."""
    if gate is False:
        return "none"
    if gate is not None and gate is not True:
        return gate
    if soft is not None:
        return "soft"
    return None if strict is None else "strict" if strict else "hard"


def _ahead(stand: _Standing, gate: Gate, known_MBU: Tensor) -> Tensor:
    """Who passes the gate, ``(M, B, U)`` bool, before it is asked who is known at all."""
    if gate in ("none", "soft"):
        return known_MBU
    if gate == "strict":
        return stand.mentors > stand.student
    if gate == "hard" or not len(known_MBU):
        return stand.mentors >= stand.student
    scores = torch.where(known_MBU, stand.mentors, -torch.inf)
    return scores == scores.amax(0)


@torch.no_grad()
def grade(
    student_log_BU: Tensor,
    mentor_log_MBU: Tensor,
    mask_BU: Tensor | None = None,
    *,
    tau: float = 12.0,
    rule: Rule = "sample",
    gate: Gate | bool | None = None,
    soft: float | None = None,
    normalise: Normalise | None = "native",
    mentoring: bool = True,
    fixed_temperature: float | None = None,
    floor: float = 1.0,
    supervised_weight: Literal["credibility", "one"] | None = None,
    reduce: Reduce | None = None,
    **old: Any,
) -> Grades:
    """Grade every mentor on every sample and unit, from log-credibilities (nats, <= 0).

    Args:
        student_log_BU: ``(B, U)``.
        mentor_log_MBU: ``(M, B, U)``; NaN counts as credibility 0 and makes the mentor inactive. A mentor is inactive
            too where it is -inf (a class that it does not know), whatever the gate. ``sample`` compares the logs
            themselves, so that probabilities too small to be numbers still differ.
        mask_BU: ``(B, U)`` bool, units that count; None = all.
        tau: temperature per unit of gap, T = 1 + tau · gap.
        rule: ``sample`` (each sample on its own), ``batch`` (R1, the released rule), ``rank`` (R0, the first release).
        gate: who teaches. ``strict``: who beats the student; ``hard``: who beats it or ties with it; ``soft``:
            everybody, times a sigmoid of the difference of what the rule compares (credibilities, shares or ranks);
            ``argmax``: the best mentor alone (all who tie for it), ahead of the student or not; ``none``: everybody,
            with weights 1/M for ``sample`` and 1 for the others. None = ``soft`` where ``soft`` is given, else the
            rule's own.
        soft: width of the sigmoid of a soft gate; None = 0.1.
        normalise: ``unit`` makes the active weights of a sample sum to 1, whatever M is; ``native``: the rule's own.
        mentoring: False replaces the gap's temperature by ``fixed_temperature``.
        fixed_temperature: None = 4 (``sample``), 1 (``batch``), 1 + 0.1 tau (``rank``). With ``rank``, whose
            strength is (T - 1)², a temperature of 1 (or ``tau=0``) distils nothing.
        floor: the least temperature of mentoring.
        supervised_weight: what multiplies the student's own loss: its credibility (None too) or one.
        reduce: sums a tensor over ranks, so that batch scores do not depend on the number of machines.
        old: ``strict``, which ``gate`` says now; ``gate=True`` and ``gate=False`` are read for one more version too.

    Raises:
        UserError: unknown rule.
    """
    if rule not in _RULES:
        raise UserError(f"rule '{rule}' is not one of {', '.join(_RULES)}")
    if old or isinstance(gate, bool):
        warn_old_name("grade(gate=BOOL, strict=BOOL)", "gate='hard', 'strict', 'soft', 'argmax' or 'none'", 4)
    spec = _RULES[rule]
    gate = gate_of(gate, soft, **old) or spec.gate
    mask = torch.ones_like(student_log_BU, dtype=torch.bool) if mask_BU is None else mask_BU
    stand = spec.stand(student_log_BU, mentor_log_MBU, mask, reduce)
    shape, dtype = mentor_log_MBU.shape, student_log_BU.dtype
    # A score that is not finite counts as 0 and is inactive: per sample, or for the whole batch by the batch rules.
    known = ~mentor_log_MBU.isnan()
    if rule != "sample":
        bad = (~known & mask).flatten(1).sum(1).to(torch.float32)
        known = ((reduce(bad) if reduce is not None else bad) == 0)[:, None, None].expand(shape) & known

    active = _ahead(stand, gate, known).expand(shape) & known & mask & (mentor_log_MBU > -torch.inf)
    weight = stand.weight
    if gate == "none":
        weight = torch.full(shape, spec.neutral(shape[0]), dtype=dtype, device=known.device)
    elif gate == "soft":
        weight = weight * torch.sigmoid(stand.lead() / (SOFT if soft is None else soft))
    weight = torch.where(active, weight.to(dtype), 0.0)
    if normalise == "unit":
        weight = weight / weight.sum(0).clamp_min(torch.finfo(dtype).tiny)

    if mentoring:
        temperature = 1.0 + tau * stand.gap.to(dtype).expand(shape)
        temperature = torch.where(known, temperature, 1.0)
        temperature = temperature.clamp_min(floor) if floor > 1 else temperature
    else:
        fixed = spec.fixed(tau) if fixed_temperature is None else fixed_temperature
        temperature = torch.full(shape, fixed, dtype=dtype, device=known.device)
    supervised = stand.supervised.to(dtype).expand(student_log_BU.shape)
    if supervised_weight == "one":
        supervised = torch.ones_like(supervised)
    return Grades(weight, temperature, (temperature - spec.shift) ** 2, active, supervised)


def bound_of(rule: Rule, bound: float | None = None) -> float:
    """The bound on the mentors' pull: the one given, or the rule's own; 0 = none."""
    return _RULES[rule].bound if bound is None else bound


def shift_of(rule: Rule) -> float:
    """What a rule takes off a temperature before it squares it for the strength: 1 for ``rank``, 0 for the others."""
    return _RULES[rule].shift
