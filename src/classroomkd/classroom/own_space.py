"""What a mentor says of its own inputs, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from classroomkd.errors import UserError

__all__ = ["sides", "statistics"]


def statistics(mean: Any, std: Any, who: str) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """A normalisation, a number a channel each.

    Raises:
        UserError: one without the other, something else than numbers, numbers of pixels in 0..255.
    """
    if (mean is None) != (std is None):
        raise UserError(f"{who}: give mean and std together")
    if mean is None:
        return None, None
    try:
        means, stds = (tuple(float(x) for x in (v if hasattr(v, "__len__") else (v,))) for v in (mean, std))
    except (TypeError, ValueError) as error:
        raise UserError(f"{who}: mean and std are a number a channel, got {mean!r} and {std!r}") from error
    if len(means) != len(stds):
        raise UserError(f"{who}: mean has {len(means)} numbers, std {len(stds)}; give one a channel")
    if not all(math.isfinite(x) for x in (*means, *stds)) or min(stds, default=1.0) <= 0:
        raise UserError(f"{who}: mean and std must be finite numbers, std above 0; got {list(means)} and {list(stds)}")
    if max((*means, *stds), default=0.0) > 1:
        raise UserError(f"{who}: mean and std are of pixels scaled to 0..1; divide by 255")
    return means, stds


def sides(size: Any, who: str) -> tuple[int, int] | None:
    """(H, W) from it, or from one side.

    Raises:
        UserError: anything else.
    """
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(both, Sequence)
        or len(both) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in both)
    ):
        raise UserError(f"{who}: size is (H, W) or one side, whole numbers of pixels; got {size!r}")
    return both[0], both[1]
