"""Latent mentor representations: for each sample a mixture of the mentors, found from the student's own feature.

Shapes: K mentors, B samples, U units, c feature channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.functional import wide

__all__ = ["Latent", "hint_distance", "mixture", "mixture_kl"]


class Latent(nn.Module):
    """AMTML's adapter: s_k(b) = Σ_c β_c(b) Θ_kc ω_c, w = softmax over the mentors.

    Args:
        mentors: K.
        channels: c of the student's feature β.
        normalised: β is brought to mean 0 and variance 1 over its channels and s divided by √c, so that s is near
            N(0, 1) at the start whatever c and the scale of β: weights neither equal nor one-hot. Otherwise β as it is.
        detached: whether β is a constant, so that the student is not trained through the weights.

    Θ and ω begin at N(0, 1). Equal mentors get weights of their own by their place.
    """

    def __init__(self, mentors: int, channels: int, *, normalised: bool = True, detached: bool = True) -> None:
        super().__init__()
        self.representations = nn.Parameter(torch.randn(mentors, channels))  # Θ
        self.mixing = nn.Parameter(torch.randn(channels))  # ω
        self.normalised, self.detached = normalised, detached

    def scores(self, feature_BD: Tensor) -> Tensor:
        """s ``(K, B)`` from the student's pooled feature ``(B, c)``."""
        beta = wide(feature_BD.detach() if self.detached else feature_BD)
        mixed = wide(self.representations) * wide(self.mixing)  # (K, c)
        if self.normalised:
            channels = beta.shape[1]
            beta, mixed = F.layer_norm(beta, (channels,), eps=1e-10), mixed / channels**0.5
        dtype = torch.promote_types(beta.dtype, mixed.dtype)
        return mixed.to(dtype) @ beta.to(dtype).T

    def forward(self, feature_BD: Tensor, known_MBU: Tensor) -> Tensor:
        """Weights ``(K, B, U)`` that carry a gradient; 0 where ``known_MBU`` is false, their sum 1 where anybody is."""
        scores = self.scores(feature_BD).unsqueeze(-1).expand(known_MBU.shape)
        scores = scores.masked_fill(~known_MBU & known_MBU.any(0), -torch.inf)
        return torch.softmax(scores, 0) * known_MBU


def mixture(mentors: Tensor, weight_MBU: Tensor, temperature: float) -> Tensor:
    """q = Σ_k w_k softmax(z_k / T): ``(K, B, U, bins)`` logits to ``(B, U, bins)``; gradient flows to the weights."""
    p = torch.softmax(wide(mentors.detach()) / temperature, -1)
    return (weight_MBU.unsqueeze(-1) * p).sum(0)


def mixture_kl(student: Tensor, mixed: Tensor, temperature: float) -> Tensor:
    """KL(q ‖ softmax(z_s / T)) without T²: ``(B, U, bins)`` logits and q give ``(B, U)``, in nats.

    Gradient flows to the student and into q, unlike in :func:`classroomkd.functional.kl_divergence`. A bin that q rules
    out adds nothing; where nobody is known (q is 0 everywhere) the divergence is 0.
    """
    there = mixed > 0
    log_q = torch.where(there, mixed, 1.0).log()
    log_p = torch.log_softmax(wide(student) / temperature, -1)
    return torch.where(there, mixed * (log_q - log_p.where(there, 0.0)), 0.0).sum(-1)


def hint_distance(projector: nn.Module, student: Tensor, mentor: Tensor, counts_B: Tensor | None = None) -> Tensor:
    """The mean over samples and places of ‖norm(P · norm(F_s)) − norm(F_k)‖², a scalar.

    norm is unit length over the channels of a place, so that this is 2 − 2 cos: between 0 and 4, and near 2 for maps
    that have nothing to do with each other, however many channels they have.

    Args:
        projector: P, to the mentor's channels, height and width.
        student: ``(B, channels, H, W)``.
        mentor: ``(B, channels', H', W')``, a constant.
        counts_B: bool; samples that add 0 and no gradient where false, whatever the features hold there. None = all.
    """
    far = _unit(projector(_unit(student))) - _unit(mentor.detach())
    if counts_B is not None:  # the difference is selected, not its square: 0 · NaN is NaN on the way back
        far = torch.where(counts_B.view(-1, 1, 1, 1), far, 0.0)
    return far.square().sum(1).mean()


def _unit(x: Tensor) -> Tensor:
    x = wide(x)
    return x * (x.square().sum(1, keepdim=True) + 1e-6).rsqrt()  # a place where all channels are 0 keeps a small slope
