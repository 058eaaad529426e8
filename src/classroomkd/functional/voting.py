"""What several classifiers say together of samples that nobody labelled.

Shapes: M mentors, B samples, C classes. Nothing here carries a gradient.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from classroomkd.functional.divergence import wide

__all__ = ["disagreement", "pairs_apart", "vote", "vote_entropy"]


@torch.no_grad()
def vote(logits_MBC: Tensor) -> Tensor:
    """The mean over the mentors of softmax(logits) at temperature 1, ``(M, B, C)`` to ``(B, C)``.

    A mentor whose logits hold a NaN or +inf, or nothing but ``-inf``, is left out; NaN where that is everybody.
    """
    p = torch.softmax(wide(logits_MBC), -1)
    finite = ~p.isnan().any(-1, keepdim=True)
    return torch.where(finite, p, 0.0).sum(0) / finite.sum(0)


@torch.no_grad()
def vote_entropy(vote_BC: Tensor) -> Tensor:
    """The entropy of a vote as a share of the largest there is, log C: ``(…, C)`` to ``(…)`` in [0, 1]; NaN stays."""
    entropy: Tensor = torch.special.entr(vote_BC).sum(-1)
    return entropy / log(max(vote_BC.shape[-1], 2))


@torch.no_grad()
def disagreement(logits_MBC: Tensor) -> Tensor:
    """The mean over mentors of KL(softmax(logits) ‖ :func:`vote`) at temperature 1, ``(M, B, C)`` to ``(B,)``, nats.

    0 where all say the same, at most log M; of mentors whose logits are finite, NaN where nobody's are. It is the
    generalised Jensen-Shannon divergence, computed as the vote's entropy less the mean of the mentors'.
    """
    p = torch.softmax(wide(logits_MBC), -1)
    finite = ~p.isnan().any(-1)
    own = torch.where(finite, torch.special.entr(p).sum(-1), 0.0).sum(0) / finite.sum(0)
    together: Tensor = torch.special.entr(vote(logits_MBC)).sum(-1)
    return (together - own).clamp_min(0.0)


@torch.no_grad()
def pairs_apart(logits_MBC: Tensor) -> Tensor:
    """The share of the pairs of networks whose likeliest class is not the same, ``(M, …, C)``, M > 1, to ``(…)``."""
    classes, networks = logits_MBC.argmax(-1), len(logits_MBC)
    differ = (classes.unsqueeze(0) != classes.unsqueeze(1)).sum((0, 1))  # each pair twice
    return differ / (networks * (networks - 1))
