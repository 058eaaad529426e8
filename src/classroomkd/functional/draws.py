"""Random numbers that depend on their key alone: no generator to restore, the same for any batch, rank or resume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from classroomkd._splitmix import GAMMA, mix, shifted, signed
from classroomkd.functional.constants import constant

__all__ = ["draw"]

_SEED = 0xD1B54A32D192ED03


def draw(ids: Tensor, step: int, seed: int | Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1), float32, one for each id: a hash (SplitMix64's finaliser) of (seed, step, id).

    Args:
        ids: int64, any shape.
        step, seed: whole numbers; several seeds draw at once what each draws alone, and are the first dimension.
    """
    x = ids.to(torch.int64) + signed(GAMMA * (step + 1))
    if isinstance(seed, int):
        x = x + signed(_SEED * (seed + 1))
    else:
        keys = tuple(signed(_SEED * (one + 1)) for one in seed)
        x = x + constant(keys, torch.int64, x.device).view(-1, *[1] * x.dim())
    return shifted(mix(x), 40).to(torch.float32) * 2.0**-24
