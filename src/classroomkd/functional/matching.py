"""Matching a mentor's channels to the student's: costs of pairs, assignments, and the transform W they make.

Shapes: S channels of the student, T of the mentor, B pictures, K classes. Everything is computed in float64 and without
chance but for :func:`random_assignment`; of equals the lower index wins.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.errors import UserError

__all__ = [
    "averaging",
    "bipartite",
    "capacity",
    "class_cost",
    "cosines",
    "greedy",
    "identity_assignment",
    "need_scipy",
    "overlap",
    "procrustes",
    "random_assignment",
    "ridge",
    "spatial_cost",
]


def cosines(own: Tensor, theirs: Tensor) -> Tensor:
    """The sum over pictures of the cosine between every two channels' maps, ``(S, T)``; a channel that is 0 has 0.

    Args:
        own: ``(B, S, positions)``.
        theirs: ``(B, T, positions)``.
    """
    one, other = F.normalize(own.double(), dim=2), F.normalize(theirs.double(), dim=2)
    return torch.einsum("bsp,btp->st", one, other)


def spatial_cost(cosines_ST: Tensor, pictures: int) -> Tensor:
    """The mean squared distance of normalised maps, 2 − 2 cos, ``(S, T)``, from a sum of :func:`cosines`."""
    return 2 - 2 * cosines_ST.double() / pictures


def class_cost(own_KS: Tensor, theirs_KT: Tensor) -> Tensor:
    """1 − the correlation over the classes of two channels' mean activations, ``(S, T)``; 1 for a constant one."""
    one, other = own_KS.double(), theirs_KT.double()
    one = F.normalize(one - one.mean(0), dim=0)
    other = F.normalize(other - other.mean(0), dim=0)
    return 1 - one.T @ other


def capacity(own: int, theirs: int) -> int:
    """How many of a mentor's channels one of the student's takes: as many as go round evenly, one at least."""
    return max(1, theirs // own)


def greedy(cost_ST: Tensor) -> Tensor:
    """The cheapest pair that is left, again and again: by channel of the mentor the student's, ``(T,)``; −1: left over.

    A channel of the student takes :func:`capacity` of the mentor's.
    """
    own, theirs = cost_ST.shape
    room, assigned = [capacity(own, theirs)] * own, [-1] * theirs
    left = min(own * room[0], theirs)
    for place in torch.argsort(cost_ST.double().cpu().flatten(), stable=True).tolist():
        one, other = divmod(place, theirs)
        if room[one] and assigned[other] < 0:
            assigned[other] = one
            room[one] -= 1
            left -= 1
            if not left:
                break
    return torch.tensor(assigned)


def need_scipy() -> None:
    """Stop where :func:`bipartite` cannot run.

    Raises:
        UserError: SciPy is missing.
    """
    try:
        found = find_spec("scipy") is not None
    except ValueError:  # somebody has put something else under this name
        found = False
    if not found:
        raise UserError("match: bipartite needs SciPy: pip install 'classroomkd[matching]', or take match: greedy")


def bipartite(cost_ST: Tensor) -> Tensor:
    """The assignment with the least sum of costs, in the form of :func:`greedy`.

    Raises:
        UserError: SciPy is missing.
    """
    need_scipy()
    from scipy.optimize import linear_sum_assignment

    own, theirs = cost_ST.shape
    rows = cost_ST.double().cpu().repeat(capacity(own, theirs), 1)
    ones, others = linear_sum_assignment(rows.numpy())
    assigned = torch.full((theirs,), -1)
    assigned[torch.as_tensor(others)] = torch.as_tensor(ones) % own
    return assigned


def identity_assignment(own: int, theirs: int) -> Tensor:
    """The mentor's channels as they come, in the form of :func:`greedy`; behind the student's last, its first again."""
    places = torch.arange(theirs)
    return torch.where(places < own * capacity(own, theirs), places % own, -1)


def random_assignment(own: int, theirs: int, seed: int) -> Tensor:
    """The mentor's channels in an order that is drawn, in the form of :func:`greedy`."""
    order = torch.randperm(theirs, generator=torch.Generator().manual_seed(seed))
    return identity_assignment(own, theirs)[order]


def averaging(assigned_T: Tensor, own: int) -> Tensor:
    """W ``(S, T)`` of an assignment: the mean of the channels that one of the student's has taken, 0 where none."""
    taken = (assigned_T.unsqueeze(0) == torch.arange(own).unsqueeze(1)).double()
    return taken / taken.sum(1, keepdim=True).clamp_min(1)


def ridge(cross_ST: Tensor, gram_TT: Tensor, strength: float) -> Tensor:
    """W ``(S, T)`` with the least ‖F_s − W F_t‖² + strength · mean(diagonal of F_t F_tᵀ) · ‖W‖².

    Args:
        cross_ST: F_s F_tᵀ.
        gram_TT: F_t F_tᵀ.
        strength: above 0.
    """
    gram = gram_TT.double()
    scale = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved: Tensor = torch.linalg.solve(gram + strength * scale * eye, cross_ST.double().T)
    return solved.T


def procrustes(cross_ST: Tensor) -> Tensor:
    """W ``(S, T)``, the rotation (with more channels on one side, a part of one) that brings F_t nearest to F_s.

    Args:
        cross_ST: F_s F_tᵀ.
    """
    left, _, right = torch.linalg.svd(cross_ST.double(), full_matrices=False)
    nearest: Tensor = left @ right
    return nearest


def overlap(one_KC: Tensor, other_KC: Tensor, most: int = 10) -> Tensor:
    """The share of the ``most`` strongest channels that two networks have in common, a scalar: the mean over classes.

    Args:
        one_KC, other_KC: mean activation by class and channel.
        most: how many; of fewer channels all.
    """
    most = min(most, one_KC.shape[1])
    first, second = (
        torch.argsort(x.double(), dim=1, descending=True, stable=True)[:, :most] for x in (one_KC, other_KC)
    )
    return (first.unsqueeze(2) == second.unsqueeze(1)).any(2).double().mean()
