"""Divergences between what a mentor and a student say. Pure functions, no state.

Shapes: M mentors, B samples, C classes. Everything is differentiable in the student's logits only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["kd", "kl_divergence", "log_credibility", "wide"]


def wide(logits: Tensor) -> Tensor:
    """Half precisions become float32; a temperature of 13 and a square of it do not fit bf16's mantissa."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class _Divergence(torch.autograd.Function):
    """KL over the last dimension with its gradient written out: half the passes over (M, B, C) that autograd makes."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, mentor: Tensor, temperature: Tensor | float) -> Tensor:
        log_p = torch.log_softmax(mentor / temperature, -1)
        log_q = torch.log_softmax(student / temperature, -1)
        p = log_p.exp()
        ctx.number = None if isinstance(temperature, Tensor) else temperature
        ctx.save_for_backward(student, None if ctx.number is not None else temperature, p, log_q)
        # 0 · log 0 is 0; a NaN of p or q, which fills its row, stays. A mask of (M, B, C) would cost five times that.
        each = (log_p - log_q).mul_(p).nan_to_num_(0.0, torch.inf, -torch.inf).sum(-1)
        broken = (p[..., :1] + log_q[..., :1]).isnan().sum(-1) > 0
        return each.masked_fill_(broken, torch.nan)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        student, given, p, log_q = ctx.saved_tensors
        temperature = ctx.number if given is None else given
        again = torch.is_grad_enabled()  # a second derivative is wanted: what depends on inputs is computed anew
        q = torch.softmax(student / temperature, -1) if again else log_q.exp()
        slope = (q - p) * (grad.unsqueeze(-1) / temperature)
        by_student = slope.sum_to_size(student.shape) if ctx.needs_input_grad[0] else None
        if given is None or not ctx.needs_input_grad[2]:
            return by_student, None, None
        return by_student, None, -(slope * (student / temperature)).sum_to_size(given.shape)


_divergence: Callable[[Tensor, Tensor, Tensor | float], Tensor] = _Divergence.apply


def kl_divergence(student_logits: Tensor, mentor_logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL(softmax(mentor / T) ‖ softmax(student / T)) over the last dimension, without the factor T².

    Args:
        student_logits: ``(..., C)``.
        mentor_logits: ``(..., C)``, broadcast against the student's; no gradient flows to it. ``-inf`` is allowed
            (a class the mentor rules out, the student too or not: its part is 0).
        temperature: a number, or a tensor that broadcasts against the leading dimensions.

    Returns:
        The divergence in nats, shape of the broadcast leading dimensions. Autograd differentiates it as often as is
        asked; the transforms of ``torch.func`` do not take it.
    """
    student_logits, mentor_logits = wide(student_logits), wide(mentor_logits).detach()
    if isinstance(temperature, Tensor):
        temperature = temperature.unsqueeze(-1).to(student_logits.dtype)
    return _divergence(student_logits, mentor_logits, temperature)


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
