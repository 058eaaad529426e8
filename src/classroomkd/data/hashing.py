"""Counter-based random numbers on torch tensors: splitmix64 in ``int64`` arithmetic, which wraps.

The same function as ``classroomkd.data.rng``; batched, on any device, without a state.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["below", "keys", "mix"]


def _signed(value: int) -> int:
    """The ``int64`` with the bits of the unsigned 64-bit number ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_xor(z: Tensor, bits: int) -> Tensor:
    # >> on int64 copies the sign; the mask makes it the logical shift that splitmix64 means.
    return z ^ ((z >> bits) & ((1 << (64 - bits)) - 1))


def mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64, element by element on ``int64``."""
    z = _shift_xor(z, 30) * _FIRST
    z = _shift_xor(z, 27) * _SECOND
    return _shift_xor(z, 31)


def _mix_int(z: int) -> int:
    """``mix`` on one number; the result is unsigned."""
    full = (1 << 64) - 1
    z &= full
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & full
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & full
    return z ^ (z >> 31)


def keys(seed: int, *parts: Tensor | int) -> Tensor:
    """One 64-bit key (``int64``) for each element of the broadcast integers ``parts`` under ``seed``; one part is a
    tensor."""
    # Numbers before the first tensor stay Python numbers: a device would have to wait for them to be copied.
    known = _mix_int(seed + 0x9E3779B97F4A7C15)
    key: Tensor | None = None
    for part in parts:
        if isinstance(part, Tensor):
            key = mix(part * GAMMA + ((key + GAMMA) if key is not None else _signed(known + GAMMA)))
        elif key is None:
            known = _mix_int(known + (part + 1) * 0x9E3779B97F4A7C15)
        else:
            key = mix(key + _signed((part + 1) * GAMMA))
    assert key is not None, "keys needs a tensor among its parts"
    return key


def below(key: Tensor, count: int | Tensor) -> Tensor:
    """A number in [0, count) for every key, by multiplying 31 of its bits; ``count`` below 2^31 (int or int64
    tensor)."""
    return (((key >> 33) & 0x7FFFFFFF) * count) >> 31
