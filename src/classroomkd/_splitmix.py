"""The mixer behind every reproducible draw: SplitMix64 (Steele, Lea and Flood 2014) in signed 64-bit arithmetic.

The same bits for Python numbers, numpy arrays and torch tensors (``int64``, which wraps). Imports neither library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Words = TypeVar("Words", int, Tensor, NDArray[np.int64])

__all__ = ["GAMMA", "mix", "shifted", "signed"]


def signed(value: int) -> int:
    """The ``int64`` with the bits of the lowest 64 of ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


GAMMA = signed(0x9E3779B97F4A7C15)
"""The increment of SplitMix64: the golden ratio, as a whole number."""
_FIRST = signed(0xBF58476D1CE4E5B9)
_SECOND = signed(0x94D049BB133111EB)
_LOW33, _LOW34, _LOW37 = (1 << 33) - 1, (1 << 34) - 1, (1 << 37) - 1


def shifted(z: Words, bits: int) -> Words:
    """``z`` shifted to the right, with zeros coming in: ``>>`` alone would copy the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Words) -> Words:
    """The finaliser of SplitMix64, element by element; of a Python number, the lowest 64 bits count."""
    z = (z ^ ((z >> 30) & _LOW34)) * _FIRST  # :func:`shifted`, written out: this runs for every sample of a batch
    z = (z ^ ((z >> 27) & _LOW37)) * _SECOND
    return z ^ ((z >> 31) & _LOW33)
