"""Counter-based random numbers: the same bits on every machine, library version, device and in any order.

A draw is a pure function of a key and a draw number, so nothing has a state. ``keys``, ``mix``, ``uniform`` and
``permutation`` are for numpy (``uint64``); ``tensor_keys``, ``below`` and ``draw`` are for torch (``int64``), on any
device. Both kinds of keys have the same bits. Does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd import _splitmix
from classroomkd._splitmix import signed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GAMMA", "below", "draw", "keys", "mix", "permutation", "tensor_keys", "uniform"]

GAMMA = _splitmix.GAMMA % 2**64
"""The increment of SplitMix64, as numpy's ``uint64`` takes it."""
U64 = NDArray[np.uint64]


def mix(z: U64) -> U64:
    """The finaliser of SplitMix64, element by element: ``uint64`` array -> new ``uint64`` array of that shape."""
    return _splitmix.mix(z.view(np.int64)).view(np.uint64)


def keys(seed: int, *parts: ArrayLike) -> U64:
    """One 64-bit key for each element of the broadcast integers ``parts`` (arrays or numbers) under ``seed``."""
    key = _keys(seed, [part if isinstance(part, int) else _array(part) for part in parts])
    return np.atleast_1d(np.asarray(key, np.int64)).view(np.uint64)


def tensor_keys(seed: int, *parts: Tensor | int) -> Tensor:
    """``keys`` as ``int64``, for broadcast tensors and numbers ``parts``; at least one is a tensor."""
    assert not all(isinstance(part, int) for part in parts), "tensor_keys needs a tensor among its parts"
    key: Tensor = _keys(seed, parts)
    return key


def _keys(seed: int, parts: Any) -> Any:
    # Numbers before the first tensor stay Python numbers: a device would have to wait for them to be copied.
    key = signed(_splitmix.mix(signed(seed + _splitmix.GAMMA)))
    for part in parts:
        if not isinstance(part, int):
            key = _splitmix.mix(part * _splitmix.GAMMA + _wrapped(key + _splitmix.GAMMA))
        else:
            key = _wrapped(_splitmix.mix(key + signed((part + 1) * _splitmix.GAMMA)))
    return key


def _wrapped(value: Any) -> Any:
    """Arrays and tensors wrap by themselves; Python numbers do not."""
    return signed(value) if isinstance(value, int) else value


def _array(value: ArrayLike) -> NDArray[np.int64]:
    """``value`` (any integers) as at least one-dimensional ``int64``; numpy warns of scalars that wrap."""
    return np.atleast_1d(np.asarray(value)).astype(np.int64, copy=False)


def uniform(key: U64, count: int, first: int = 0) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) for every key: ``(*key.shape, count)`` float64, draws ``first`` to ``first + count
    - 1``."""
    draw = (_array(np.arange(first + 1, first + count + 1)) * _splitmix.GAMMA).view(np.uint64)
    return (mix(key[..., None] + draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, count: int) -> NDArray[np.int64]:
    """The numbers 0 to ``count - 1`` in an order that depends on ``seed`` alone, ``(count,)`` int64."""
    return np.argsort(keys(seed, np.arange(count)), kind="stable").astype(np.int64)


def below(key: Tensor, count: int | Tensor) -> Tensor:
    """A number in [0, count) for every key, by multiplying 31 of its bits; ``count`` below 2^31 (int or int64
    tensor)."""
    return (((key >> 33) & 0x7FFFFFFF) * count) >> 31


def draw(key: Tensor, stream: int, count: int | Tensor) -> Tensor:
    """A number in [0, ``count``) for every key, for the purpose ``stream``: numbers of several purposes are independent
    of each other."""
    return below(_splitmix.mix(key + stream), count)
