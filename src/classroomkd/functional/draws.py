"""Random numbers that depend on their key alone: no generator to restore, the same for any batch, rank or resume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from classroomkd.functional.constants import constant

__all__ = ["draw"]


def draw(ids: Tensor, step: int, seed: int | Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1), float32, one for each id: a hash (SplitMix64's finaliser) of (seed, step, id).

    Args:
        ids: int64, any shape.
        step, seed: whole numbers; several seeds draw at once what each draws alone, and are the first dimension.
    """
    x = ids.to(torch.int64) + _wrapped(0x9E3779B97F4A7C15 * (step + 1))
    if isinstance(seed, int):
        x = x + _wrapped(0xD1B54A32D192ED03 * (seed + 1))
    else:
        keys = tuple(_wrapped(0xD1B54A32D192ED03 * (one + 1)) for one in seed)
        x = x + constant(keys, torch.int64, x.device).view(-1, *[1] * x.dim())
    x = (x ^ _shifted(x, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _wrapped(0x94D049BB133111EB)
    top: Tensor = _shifted(x ^ _shifted(x, 31), 40)
    return top.to(torch.float32) * 2.0**-24


def _wrapped(x: int) -> int:
    """A whole number as a signed 64-bit one."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    shifted: Tensor = (x >> bits) & (2 ** (64 - bits) - 1)
    return shifted
