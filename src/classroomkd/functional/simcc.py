"""SimCC: a joint's place as two categoricals, one over x-bins and one over y-bins. Pure functions of one axis.

UDP coordinates: bin i of an axis is at ``i / split`` input pixels, pixel centres at integers, so ``side`` pixels have
``round(side · split)`` bins and the last lies half a pixel (split 2) beyond the last pixel's centre.

Sources: SimCC (Li et al., ECCV 2022, arXiv 2107.03332); RTMPose (arXiv 2303.07399) for beta 10 and for the Gaussian:
its sigmas in bins of split 2, (4.9, 5.66) at 192 x 256 and (6, 6.93) at 288 x 384, are sqrt(side / 8). The label's
centre is not rounded to a bin here (released code rounds it; with a clean label the best bin is the same).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from classroomkd.functional.divergence import wide

__all__ = [
    "best_bin",
    "bin_sigma",
    "bins_of",
    "gaussian_bins",
    "label_divergence",
    "mean_bins",
    "mirrored_bins",
    "nearest_bin",
    "peak_mass",
]

BETA = 10.0
SPLIT = 2.0


def bins_of(side: int, split: float = SPLIT) -> int:
    """How many bins ``side`` pixels have."""
    return round(side * split)


def bin_sigma(side: int, split: float = SPLIT) -> float:
    """The Gaussian's standard deviation in bins for an axis of ``side`` pixels; see the module for the source."""
    return math.sqrt(side / 8) * split / 2


def gaussian_bins(place: Tensor, bins: int, split: float, sigma: float) -> Tensor:
    """A Gaussian with peak 1 at ``place`` (input px, ``(…)``) over the bins, ``(…, bins)``, float32 at least."""
    place = wide(place).unsqueeze(-1) * split
    at = torch.arange(bins, dtype=place.dtype, device=place.device)
    return torch.exp((at - place).square() / (-2 * sigma**2))


def label_divergence(logits: Tensor, label: Tensor, beta: float = BETA) -> Tensor:
    """KL(softmax(beta · label) ‖ softmax(beta · logits)) over the last dimension, nats; the label is a constant.

    Args:
        logits: ``(…, bins)``; ``-inf`` gives ``inf``, NaN gives NaN.
        label: of :func:`gaussian_bins`, broadcasts against the logits.
        beta: sharpness of both (RTMPose: 10).
    """
    with torch.no_grad():
        log_p = torch.log_softmax(beta * label, -1)
    log_q = torch.log_softmax(beta * wide(logits), -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def best_bin(logits: Tensor, split: float = SPLIT) -> Tensor:
    """Where the highest bin is, input px, ``(…)``; the first of equals."""
    return logits.argmax(-1).to(wide(logits).dtype) / split


def nearest_bin(place: Tensor, bins: int, split: float = SPLIT) -> Tensor:
    """The bin of a place (input px), ``(…)`` int64, the nearest one where the place is outside."""
    return (wide(place) * split).round().clamp(0, bins - 1).long()


def peak_mass(logits: Tensor, radius: float, beta: float = BETA) -> Tensor:
    """The probability within ``radius`` bins of the highest bin, ``(…)``, in [0, 1]."""
    p = torch.softmax(beta * wide(logits), -1)
    at = torch.arange(p.shape[-1], device=p.device)
    near = (at - p.argmax(-1, keepdim=True)).abs() <= radius
    return p.where(near, 0.0).sum(-1).clamp(0, 1)


def mirrored_bins(logits: Tensor, side: int, split: float = SPLIT) -> Tensor:
    """The x-bins of the mirror image, ``(…, bins)``: place x becomes ``side - 1 - x``.

    The order is not simply reversed: with split 2 that would be half a pixel off. The bins beyond the last pixel's
    centre have no counterpart and take the first bin's value.
    """
    count = logits.shape[-1]
    at = torch.arange(count, device=logits.device)
    return logits.index_select(-1, (round((side - 1) * split) - at).clamp(0, count - 1))


def mean_bins(logits: Sequence[Tensor], beta: float = BETA) -> Tensor:
    """Logits whose distribution is the mean of these ones' distributions (flip test, ensembles)."""
    several = torch.stack([torch.log_softmax(beta * wide(z), -1) for z in logits])
    return (several.logsumexp(0) - math.log(len(logits))) / beta
