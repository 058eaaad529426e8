"""A small quadratic programme over the capped simplex: which mix of mentors pulls the student least apart.

One function, made for a training step: a fixed number of interior-point iterations on an (M, M) matrix, all on the
tensor's device. Nothing is decided in Python from a value, so the step never waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional.constants import constant

__all__ = ["capped_simplex_qp"]

# A well-posed problem needs 8 to 12 iterations. One whose optimum lies on an edge by a hair (a coordinate and its
# multiplier both 0 there) gains a digit of the weights in about 2.4 iterations and needs all of them for 1e-8.
_ITERATIONS = 20
_START = 0.3  # the first multipliers, over the number of mentors; of the order of the scaled gradient
_STAY = 0.995  # how much of the way to the nearest bound a step may go
# Two products of the same vectors, summed in another order, differ by a few roundings of |g| |h|; this many are more
# than a matrix library needs for vectors of a million numbers.
_ROUNDINGS = 256


@torch.no_grad()
def capped_simplex_qp(
    gram: Tensor, cap: float | None = None, known: Tensor | None = None, precision: float = 0.0
) -> Tensor:
    """The weights a that minimise ½ aᵀ G a with Σ a = 1 and 0 <= a <= cap.

    The answer does not depend on the scale of G. Identical mentors (rows of G that are equal to rounding) are one
    unknown of the programme, whose weight they share equally. Where several weightings are optimal for another reason
    (more mentors than directions), it is the most central of them.

    Args:
        gram: ``(M, M)``, symmetric and positive semidefinite; read in float64 (float32 on MPS, which has no other).
        cap: the largest weight a mentor may have; None, or 1 and more = no cap. A cap that no weighting could meet
            (below 1/n for n mentors) is read as 1/n.
        known: ``(M,)`` bool, mentors that take part; None = all. What G holds for the others is not read.
        precision: how far, over |g| |h|, a product in G may be off because g and h were rounded before: mentors whose
            rows differ by less are identical. 0 = G's own rounding only.

    Returns:
        ``(M,)`` in the dtype the problem is solved in, a constant for autograd; 0 for mentors that take no part, NaN
        if what is read of G is not finite. The objective is exact to rounding; the weights too, to 1e-8, wherever G
        determines them.

    Raises:
        UserError: the cap is not above 0.
    """
    if cap is not None and not cap > 0:
        raise UserError(f"a cap of {cap} on the weights leaves nothing to share: give one above 0, or none")
    with torch.autocast(gram.device.type, enabled=False):
        return _solve(gram if gram.device.type == "mps" else gram.double(), cap, known, precision)


def _solve(gram: Tensor, cap: float | None, known: Tensor | None, rounded: float = 0.0) -> Tensor:
    m, precision = len(gram), torch.finfo(gram.dtype)
    member = torch.ones_like(gram[0]) if known is None else known.to(gram.dtype)
    n = member.sum().clamp_min(1)
    gram = torch.where(member[:, None] * member > 0, (gram + gram.T) / 2, 0.0)
    gram = gram / gram.diagonal().sum().clamp_min(precision.tiny)
    bound = torch.full_like(n, 2.0 if cap is None or cap >= 1 else cap)
    # With room for one weighting only, the interior is empty: that weighting is the answer, and the rest of this
    # function solves another problem whose answer is not used.
    tight = bound * n <= 1 + precision.eps**0.6
    bound = torch.where(tight, 2 / n, bound)

    # The unknowns are the weights of groups of identical mentors, each in the place of its first, with the room of all
    # its members (``size``). Whoever takes no part, or is another's copy, stays as a variable of its own with no cost
    # and no share in the sum: no special case, and the shapes do not depend on the values.
    alike = _alike(gram, member, max(rounded, _ROUNDINGS * precision.eps))
    group = member * ~alike.tril(-1).any(1)
    size = torch.where(group > 0, alike.sum(1), 1).to(gram.dtype)
    gram = torch.where(group[:, None] * group > 0, gram, 0.0)

    # The rows of state: a, cap - a, and their multipliers, all above 0; level is the multiplier of the sum.
    a, price = size / n, (_START / n).expand(m)
    state, level = torch.stack([a, bound * size - a, price, price]), torch.zeros_like(n)
    share = size / (2 * size.sum())  # of the gap; by mentors, so that the centre is theirs and not the groups'
    sign = constant((1.0, -1.0), gram.dtype, gram.device)[:, None]
    diagonal = torch.eye(m, dtype=torch.bool, device=gram.device)
    # More mentors than directions make the Newton matrix singular near the optimum. A touch on its unit diagonal keeps
    # the steps along the undecided directions small; where the iterations end is not moved by it.
    unit = 1 + precision.eps**0.75

    for _ in range(_ITERATIONS):
        room, price = state[:2], state[2:]
        scale = (gram.diagonal() + (price / room).sum(0)).rsqrt()
        scaled = scale[:, None] * scale
        inverse = torch.linalg.inv_ex(torch.where(diagonal, unit, gram * scaled))[0] * scaled
        along = inverse @ group
        system = inverse, along, (1 - group @ state[0]) / (group @ along), group / (group @ along)
        slope = level * group - gram @ state[0]
        # First how far a step straight to the optimum would come, then the step itself, which keeps away from the
        # bounds as much as the first says is needed (Mehrotra's predictor and corrector).
        change, _, length = _newton(state, sign, system, slope, 0.0)
        gap, tried = (room * price).sum(), state + length * change
        shrink = ((tried[:2] * tried[2:]).sum() / gap) ** 3 * gap * share
        target = (shrink - change[:2] * change[2:]) / room
        change, d_level, length = _newton(state, sign, system, slope + (sign * target).sum(0), target)
        # Once the gap is at rounding level, or a step is no number, what is there stays.
        move = torch.isfinite(length * d_level) & (gap > precision.eps**1.6)
        state = torch.where(move, state + length * change, state)
        level = torch.where(move, level + length * d_level, level)

    a = group * state[0]
    a = (alike * (a / size)).sum(1)  # one number of each row is not 0: every mentor's share of its group
    a = torch.where(tight, member / n, a / a.sum().clamp_min(precision.tiny))
    return a + 0.0 * gram.sum()  # a NaN in what was read shows in what comes out


def _alike(gram: Tensor, member: Tensor, tolerance: float) -> Tensor:
    """Which mentors are identical, ``(M, M)`` bool, an equivalence: rows of G that agree to ``tolerance`` · |g| |h|."""
    length = gram.diagonal().sqrt()
    far = (gram[:, None] - gram).abs()  # (M, M, M)
    near = (far <= tolerance * torch.maximum(length[:, None], length)[..., None] * length).all(-1)
    near = (near & (member[:, None] == member)) | torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    first = near.int().argmax(1)  # nearness does not carry on from one to the next; having the same first does
    return first[:, None] == first


def _newton(
    state: Tensor, sign: Tensor, system: tuple[Tensor, Tensor, Tensor, Tensor], slope: Tensor, target: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One Newton step to multipliers of ``target``: changes of state and level, and how far it may go (<= 1)."""
    inverse, along, missing, mean = system
    step = inverse @ slope
    d_level = missing - mean @ step
    d_room = sign * (step + d_level * along)
    d_price = target - state[2:] * (1 + d_room / state[:2])
    change = torch.cat([d_room, d_price])
    return change, d_level, _STAY / (change / state).amin().neg().clamp_min(_STAY)
