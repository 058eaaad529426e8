"""A bound on how hard mentors may pull, for rules whose temperature makes them louder than any label.

Shapes: B samples, U units a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["STEEPEST", "restraint"]

STEEPEST = 2**0.5  # no gradient of a cross-entropy on its logits is longer than this


def restraint(pull_BU: Tensor, answer: Tensor, most: float) -> Tensor:
    """What keeps the mentors from pulling harder at a unit than ``most``: a factor in (0, 1], without a gradient.

    Σ w T² KL(T) pulls with up to T Σ w, and goes on doing so however far the student's logits have been carried; a
    cross-entropy's gradient ends at :data:`STEEPEST`. The direction of the pull stays what it is.

    Args:
        pull_BU: ``(B, U)``, the mentors' summed part of each unit, by autograd from ``answer``. Without a gradient the
            factor is 1.
        answer: the student's, ``(B, …)``, or ``(B, U, …)`` where units have parts of it to themselves.
        most: the longest gradient of a unit's part on the answer.
    """
    if not (pull_BU.requires_grad and answer.requires_grad):
        return torch.ones_like(pull_BU)
    (gradient,) = torch.autograd.grad(pull_BU.sum(), answer, retain_graph=True)
    parts = answer[0:1].shape.numel() // pull_BU.shape[1] if len(answer) else 1
    length: Tensor = gradient.reshape(*pull_BU.shape, parts).to(pull_BU.dtype).norm(dim=-1)
    factor: Tensor = (most / length).clamp_max(1.0)  # 1 where nobody pulls: inf
    return factor
