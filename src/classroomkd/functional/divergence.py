"""Divergences between what a mentor and a student say. Pure functions, no state.

Shapes: M mentors, B samples, C classes. Everything is differentiable in the student's logits only.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["average", "kd", "kl_divergence", "log_credibility", "wide"]


def wide(logits: Tensor) -> Tensor:
    """Half precisions become float32; a temperature of 13 and a square of it do not fit bf16's mantissa."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def kl_divergence(student_logits: Tensor, mentor_logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL(softmax(mentor / T) ‖ softmax(student / T)) over the last dimension, without the factor T².

    Args:
        student_logits: ``(..., C)``.
        mentor_logits: ``(..., C)``, broadcast against the student's; no gradient flows to it. ``-inf`` is allowed
            (a class the mentor rules out, the student too or not: its part is 0).
        temperature: a number, or a tensor that broadcasts against the leading dimensions.

    Returns:
        The divergence in nats, shape of the broadcast leading dimensions.
    """
    student_logits, mentor_logits = wide(student_logits), wide(mentor_logits)
    if isinstance(temperature, Tensor):
        temperature = temperature.unsqueeze(-1).to(student_logits.dtype)
    with torch.no_grad():
        log_p = torch.log_softmax(mentor_logits / temperature, -1)
        p = log_p.exp()
    log_q = torch.log_softmax(student_logits / temperature, -1)
    return (p * (log_p - log_q)).masked_fill(p == 0, 0.0).sum(-1)  # 0 · log 0 is 0, not NaN; a NaN of p stays


def log_credibility(logits: Tensor, target: Tensor) -> Tensor:
    """log p(true class) of every sample: ``(..., B, C)`` logits and ``(B,)`` classes give ``(..., B)``, in nats.

    NaN where the logits hold a NaN or +inf.
    """
    log_p = torch.log_softmax(wide(logits), -1)
    index = target.expand(log_p.shape[:-1]).unsqueeze(-1)
    return log_p.gather(-1, index).squeeze(-1)


def kd(student_logits: Tensor, mentor_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton's distillation term per sample: T² · KL(mentor ‖ student) at temperature T.

    Args:
        student_logits: ``(B, C)``.
        mentor_logits: ``(B, C)``; no gradient flows to it.
        temperature: T > 0.

    Returns:
        ``(B,)``, nats. Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531).
    """
    return temperature**2 * kl_divergence(student_logits, mentor_logits, temperature)


def average(student_logits: Tensor, mentor_logits_MBC: Tensor, temperature: float = 4.0) -> Tensor:
    """Plain averaging of mentors (AVER): the mean over mentors and samples of T² · KL(mentor ‖ student).

    Args:
        student_logits: ``(B, C)``.
        mentor_logits_MBC: ``(M, B, C)``; no gradient flows to it.
        temperature: T > 0.

    Returns:
        A scalar, nats.
    """
    return kd(student_logits.unsqueeze(0), mentor_logits_MBC, temperature).mean()
