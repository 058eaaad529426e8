"""One mentor, one student, their logits: DKD, DIST and DTKD.

Shapes: B samples or rows, C classes (C >= 2), M mentors. Gradients flow to the student only. A class that a mentor
rules out (``-inf``) is read through :func:`finite_logits`. Formulas and checks: ``tests/golden``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional.divergence import kl_divergence, wide

__all__ = ["dist", "dist_by_mentor", "dkd_per_sample", "dtkd_per_sample", "finite_logits"]

_BELOW = 20.0  # nats under the row's least finite logit
_EPS = 1e-8  # DIST adds it to the product of the norms
_FLAT = 1e-3  # logits' distance from their mean; a student nearer than that has no direction worth a steeper gradient


def finite_logits(logits: Tensor) -> Tensor:
    """Logits ``(..., C)`` with every ``-inf`` replaced by the row's least finite one less 20; half precisions widen.

    NaN and +inf stay. No gradient flows to what was replaced, nor from it.
    """
    logits = wide(logits)
    with torch.no_grad():
        least = torch.where(logits.isfinite(), logits, torch.inf).amin(-1, keepdim=True)
        floor = torch.where(least.isinf(), 0.0, least) - _BELOW
    return torch.where(logits == -torch.inf, floor, logits)


def _by_row(temperature: float | Tensor) -> float | Tensor:
    """A temperature of every row as logits ``(..., C)`` are divided by it."""
    return temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature


def _split(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of (the true class, all others together), (..., 2), and of the others on their own, (..., C)."""
    others = logits.masked_fill(truth, -torch.inf)
    true = torch.where(truth, logits, 0.0).sum(-1)
    return torch.stack([true, others.logsumexp(-1)], -1), others


def dkd_per_sample(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 8.0,
    temperature: float | Tensor = 4.0,
) -> Tensor:
    """Decoupled KD: T² · (alpha · KL of (true class, rest) + beta · KL among the wrong classes).

    Args:
        student_logits: ``(..., C)``.
        teacher_logits: ``(..., C)``, broadcast against the student's: ``(M, B, C)`` with ``(B, C)``.
        target: int64 classes, broadcast to the leading dimensions: ``(B,)``.
        alpha: factor of the binary part; a number or a tensor over the leading dimensions.
        beta: factor of the part among the wrong classes. With the teacher's mass on the wrong classes (at T) in its
            place and alpha = 1 this is plain KD.
        temperature: T > 0; a number or a tensor over the leading dimensions.

    Returns:
        The leading dimensions, ``(..., B)``, nats. Source: Zhao et al. 2022 (arXiv 2203.08679).

    Raises:
        UserError: a single class, which leaves no wrong ones to compare.
    """
    if student_logits.shape[-1] < 2:
        raise UserError("dkd compares the wrong classes among themselves, and of one class there are none: use kd")
    divisor = _by_row(temperature)
    student, teacher = finite_logits(student_logits) / divisor, finite_logits(teacher_logits.detach()) / divisor
    truth = torch.arange(student.shape[-1], device=student.device) == target.unsqueeze(-1)
    student_binary, student_others = _split(student, truth)
    teacher_binary, teacher_others = _split(teacher, truth)
    binary = kl_divergence(student_binary, teacher_binary)
    among = kl_divergence(student_others, teacher_others)
    return temperature**2 * (alpha * binary + beta * among)


def _correlation(student: Tensor, mentors: Tensor, dim: int, least: float | Tensor) -> Tensor:
    """Pearson's correlation of what is centred already; a student's norm below ``least`` counts as that."""
    ours, theirs = (torch.linalg.vector_norm(x, dim=dim) for x in (student, mentors))
    norms: Tensor = ours.clamp_min(least) * theirs
    return (student * mentors).sum(dim) / (norms + _EPS)


def dist_by_mentor(
    student_logits: Tensor,
    mentor_logits: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    tau: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """DIST against each mentor: tau² · (beta · (1 - row correlation) + gamma · (1 - column correlation)).

    Rows are samples (how the classes of one answer relate), columns are classes (how the samples relate on one class);
    the correlations are Pearson's, between softened probabilities, and averaged. The column part lives on the batch.
    A student that gives every class the same probability has correlations of 0; its gradient is bounded, by treating
    deviations below those of logits 0.001 apart as if they were that large.

    Args:
        student_logits: ``(N, C)``, or one student for each mentor, ``(M, N, C)``.
        mentor_logits: ``(M, N, C)``.
        beta: factor of the row part.
        gamma: factor of the column part.
        tau: temperature > 0; or one of every mentor and row, ``(M, N)``: a row's part then has its own tau², the
            columns' part the mean of tau² over the rows that count.
        mask: ``(N,)`` or ``(M, N)`` bool, rows that count; None = all. Other rows are as if they were not there.

    Returns:
        ``(M,)``; 0 for a mentor without a row. Source: Huang et al. 2022 (arXiv 2205.10536).
    """
    divisor = _by_row(tau)
    student = torch.softmax(finite_logits(student_logits) / divisor, -1)
    mentors = torch.softmax(finite_logits(mentor_logits.detach()) / divisor, -1)
    shape = mentors.shape[:-1]
    counted = torch.ones(shape, dtype=torch.bool, device=mentors.device) if mask is None else mask.expand(shape)
    keep = counted.unsqueeze(-1).to(student.dtype)
    rows = keep.sum((1, 2)).clamp_min(1)
    student, mentors = (torch.where(counted.unsqueeze(-1), x, 0.0) for x in (student, mentors))

    def of_columns(x: Tensor) -> Tensor:
        return (x - x.sum(1, keepdim=True) / rows[:, None, None]) * keep

    least = _FLAT / (tau * student.shape[-1])  # softmax turns a small step of a logit into 1 / (tau C) of it
    by_row = _correlation(student - student.mean(-1, keepdim=True), mentors - mentors.mean(-1, keepdim=True), -1, least)
    of_column = least.mean(1, keepdim=True) if isinstance(least, Tensor) else least
    within = 1 - _correlation(of_columns(student), of_columns(mentors), 1, of_column).mean(-1)
    if isinstance(tau, Tensor):
        square = torch.where(counted, tau**2, 0.0)
        far = (beta * (square * (1 - by_row)).sum(1) + gamma * square.sum(1) * within) / rows
    else:
        between = 1 - by_row.sum(1) / rows
        far = tau**2 * (beta * between + gamma * within)
    return torch.where(counted.any(1), far, 0.0)


def dist(
    student_logits: Tensor, teacher_logits: Tensor, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0
) -> Tensor:
    """:func:`dist_by_mentor` for one teacher: ``(N, C)`` and ``(N, C)`` give a scalar."""
    return dist_by_mentor(student_logits, teacher_logits.unsqueeze(0), beta, gamma, tau).squeeze(0)


def dtkd_per_sample(
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float = 3.0,
    beta: float = 1.0,
    temperature: float | Tensor = 4.0,
    detach_temperature: bool = False,
    floor: float = 1.0,
    eps: float = 1e-3,
) -> Tensor:
    """Dynamic temperature KD: alpha · T_s T_t KL(teacher at T_t ‖ student at T_s) + beta · T² KL(both at T).

    T_s = 2 T m_s / (m_s + m_t) and T_t = 2 T m_t / (m_s + m_t), m the largest logit of the sample: whoever is sharper
    is softened more. The largest logit depends on a constant added to all logits, and may be negative, where the
    formula means nothing: it counts as at least ``eps``, and neither temperature is below ``floor``. Without the floor
    a student whose logits are near 0 is read at a temperature near 0, as if it were sure of its answer.

    Args:
        student_logits: ``(..., C)``.
        teacher_logits: ``(..., C)``, broadcast against the student's.
        alpha: factor of the part at two temperatures.
        beta: factor of the plain part.
        temperature: T > 0, the mean of the two temperatures; a number or a tensor over the leading dimensions.
        detach_temperature: True holds the temperatures constant; the released code lets gradients through, and so
            does this where a temperature is above its floor.
        floor: the least temperature, >= 0; 0 = none, as released. With T below it both temperatures are the floor.
        eps: > 0, the least value of m (the released code has no guard).

    Returns:
        The leading dimensions, ``(..., B)``, nats. Source: Wei, Bai 2024 (arXiv 2404.12711); its authors have since
        withdrawn the derivation of its formulas (4) and (5) and stand by the measurements.
    """
    student, teacher = finite_logits(student_logits), finite_logits(teacher_logits.detach())
    top_student = (student.detach() if detach_temperature else student).amax(-1, keepdim=True).clamp_min(eps)
    top_teacher = teacher.amax(-1, keepdim=True).clamp_min(eps)
    unit = 2 * _by_row(temperature) / (top_student + top_teacher)
    own, theirs = (unit * top_student).clamp_min(floor), (unit * top_teacher).clamp_min(floor)
    log_p, log_q = torch.log_softmax(teacher / theirs, -1), torch.log_softmax(student / own, -1)
    # Not kl_divergence, which holds the mentor's side constant: theirs depends on the student's temperature.
    p = log_p.exp()
    dynamic = (p * (log_p - log_q)).sum(-1)
    plain = kl_divergence(student, teacher, temperature)
    return alpha * (own * theirs).squeeze(-1) * dynamic + beta * temperature**2 * plain
