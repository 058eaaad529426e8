"""Counter-based random numbers (splitmix64) on numpy: the same bits on every machine, numpy version and in any order.

A draw is a pure function of a key and a draw number, so nothing has a state. Integer arithmetic on ``uint64`` wraps,
which numpy does silently for arrays (scalars are kept out of the arithmetic for that reason). Does not import torch;
``classroomkd.data.hashing`` is the same function on torch tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GAMMA", "keys", "mix", "permutation", "uniform"]

GAMMA = 0x9E3779B97F4A7C15
U64 = NDArray[np.uint64]


def _array(value: ArrayLike) -> U64:
    """``value`` (any integers) as at least one-dimensional ``uint64``, negative ones wrapped."""
    return np.atleast_1d(np.asarray(value)).astype(np.int64, copy=False).view(np.uint64)


def mix(z: U64) -> U64:
    """The finaliser of splitmix64, element by element: ``uint64`` array -> new ``uint64`` array of that shape."""
    z = z ^ (z >> np.uint64(30))
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def keys(seed: int, *parts: ArrayLike) -> U64:
    """One 64-bit key for each element of the broadcast integer arrays ``parts`` under ``seed``."""
    key = mix(_array(seed) + np.uint64(GAMMA))
    for part in parts:
        key = mix(key + _array(part) * np.uint64(GAMMA) + np.uint64(GAMMA))
    return key


def uniform(key: U64, count: int, first: int = 0) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) for every key: ``(*key.shape, count)`` float64, draws ``first`` to ``first + count
    - 1``."""
    draw = _array(np.arange(first + 1, first + count + 1)) * np.uint64(GAMMA)
    return (mix(key[..., None] + draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, count: int) -> NDArray[np.int64]:
    """The numbers 0 to ``count - 1`` in an order that depends on ``seed`` alone, ``(count,)`` int64."""
    return np.argsort(keys(seed, np.arange(count)), kind="stable").astype(np.int64)
