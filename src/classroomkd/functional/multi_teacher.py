"""How much each of several mentors counts: the weights of EBKD, CA-MKD and AEKD.

Shapes: M mentors, B samples, C classes; a weight helper takes any dimensions between M and the last. Weights are
constants for autograd and sum to 1 over the mentors that count; the scale factors of the released code
(Rorozhl/CA-MKD at c2f39a9) are the methods'. A mentor whose logits are ``-inf`` on a class rules that class out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from classroomkd.functional.divergence import wide
from classroomkd.functional.quadratic import capped_simplex_qp

__all__ = ["confidence_weights", "entropy_weights", "gram_weights", "kl_gradients"]

_NO_NORM = 1e-12  # of the longest gradient's; a mentor without a gradient has a weight, not a division by 0
# A gradient is a sum over samples and ranks, whose order a matrix library or a network of ranks may choose anew for
# every mentor. Pairwise sums of 2^16 numbers are off by at most 16 roundings.
_ROUNDINGS = 16


def _others(share: Tensor, known: Tensor, n: Tensor) -> Tensor:
    """(1 - share) / (n - 1) where known, which sums to 1 again and is large where a share was small; 1 where n = 1."""
    turned = torch.where(n > 1, (1 - share) / (n - 1).clamp_min(1), 1.0)
    return torch.where(known, turned, 0.0)


def _counted(values: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which mentors count where, NaN never, and how many."""
    counted = ~values.isnan() if known is None else known & ~values.isnan()
    return counted, counted.sum(0).to(values.dtype)


@torch.no_grad()
def entropy_weights(mentor_logits: Tensor, known: Tensor | None = None) -> Tensor:
    """EBKD's weights: the surer a mentor is of its answer, the more it counts, right or wrong.

    w_m = (1 - H_m / Σ_j H_j) / (n - 1), H the entropy of softmax(logits) at temperature 1 (nats).

    Args:
        mentor_logits: ``(M, ..., C)``, ``-inf`` allowed.
        known: ``(M, ...)`` bool, where a mentor counts; None = everywhere. NaN logits never count.

    Returns:
        ``(M, ...)``: sums to 1 over the n mentors that count, 0 where none does; 1/n where all are certain.
    """
    p = torch.softmax(wide(mentor_logits), -1)
    entropy = torch.special.entr(p).sum(-1)  # 0 at p = 0, where p · log p would be NaN
    counted, n = _counted(entropy, known)
    entropy = torch.where(counted, entropy, 0.0)
    total = entropy.sum(0)
    share = torch.where(total > 0, entropy / total, 1 / n)
    return _others(share, counted, n)


@torch.no_grad()
def confidence_weights(loss: Tensor, known: Tensor | None = None) -> Tensor:
    """CA-MKD's weights: w_m = (1 - softmax_m(loss)) / (n - 1), so the worst mentor is put aside.

    The softmax is of the loss, not of its negative: with n mentors none has more than 1/(n - 1).

    Args:
        loss: ``(M, ...)``, a mentor's own loss on each unit (nats); ``inf`` allowed.
        known: ``(M, ...)`` bool, where a mentor counts; None = everywhere. A NaN loss never counts.

    Returns:
        ``(M, ...)``: sums to 1 over the n mentors that count, 0 where none does.
    """
    loss = wide(loss)
    counted, n = _counted(loss, known)
    loss = torch.where(counted, loss, -torch.inf)
    worst = loss.amax(0)
    # The largest loss becomes 0 by comparison, not by subtraction: inf - inf is NaN.
    share = torch.softmax(torch.where(loss == worst, 0.0, loss - worst), 0)
    return _others(share, counted, n)


@torch.no_grad()
def kl_gradients(
    student_logits: Tensor,
    mentor_logits: Tensor,
    temperature: float = 4.0,
    mask: Tensor | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """In which direction each mentor pulls the student's logits, without a backward pass.

    The derivative of T² · KL(mentor ‖ student) by the student's logits is T · (p_student - p_mentor). It is added up
    over the batch and divided by the number of units the mentor counts on. Units of a sample (keypoints) keep
    coordinates of their own.

    Args:
        student_logits: ``(B, ..., C)``.
        mentor_logits: ``(M, B, ..., C)``.
        temperature: T > 0.
        mask: bool, broadcasts to ``(M, B, ...)``: where a mentor counts; None = everywhere.
        reduce: sums a tensor over ranks, so that the answer is that of the whole batch.

    Returns:
        ``(M, D)``, D the product of the sizes after B; a row of NaN for a mentor that counts nowhere, which
        :func:`gram_weights` leaves out.
    """
    student, mentors = wide(student_logits), wide(mentor_logits)
    pull = torch.softmax(student / temperature, -1) - torch.softmax(mentors / temperature, -1)
    counted = torch.ones_like(pull[..., 0], dtype=torch.bool) if mask is None else mask.expand(pull.shape[:-1])
    pull = temperature * torch.where(counted.unsqueeze(-1), pull, 0.0)
    sums = torch.cat([pull.sum(1).flatten(1), counted.flatten(1).sum(1, keepdim=True)], 1)
    if reduce is not None:
        sums = reduce(sums)
    return sums[:, :-1] / sums[:, -1:]


@torch.no_grad()
def gram_weights(
    gradients: Tensor, cap: float | None = None, known: Tensor | None = None, unit: bool = False
) -> Tensor:
    """AEKD's weights: the mix of gradients with the smallest norm, Σ a = 1, 0 <= a <= cap (MGDA with a cap).

    Args:
        gradients: ``(M, D)``; their scale does not matter.
        cap: the largest weight; None = no cap, below 1/n for n mentors = 1/n.
        known: ``(M,)`` bool, mentors that count; None = all. A row with a NaN never counts.
        unit: mix the directions alone, then divide each weight by the length of its gradient, which may lift one above
            the cap: what AEKD's released code does on features. A mentor without a gradient then has all the weight.

    Returns:
        ``(M,)``, sums to 1 over the mentors that count. Mentors whose gradients are equal to the rounding of their
        dtype share equally.
    """
    counted, _ = _counted(gradients.sum(1), known)
    rows = gradients if gradients.device.type == "mps" else gradients.double()
    rows = torch.where(counted[:, None], rows, 0.0)
    rows = rows / rows.abs().amax().clamp_min(torch.finfo(rows.dtype).tiny)  # squares of small gradients underflow
    with torch.autocast(gradients.device.type, enabled=False):
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(_NO_NORM)
        rows = rows / length if unit else rows
        weight = capped_simplex_qp(rows @ rows.T, cap, counted, _ROUNDINGS * torch.finfo(wide(gradients).dtype).eps)
        if unit:
            weight = weight / length[:, 0]
            weight = weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
    return weight.to(wide(gradients).dtype)
