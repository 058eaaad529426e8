"""The checksum of a row: says that the row is there, whole, and at its own address.

It is ``Σ weight_i · piece_i + weight · address + salt`` in 64-bit arithmetic that wraps, of which 31 of the upper 32
bits are kept under a top bit that is always set: never 0, which means "not there". The pieces are the row's 32-bit
integers (16- or 8-bit ones where its length asks for them). The weights hold patterns that leave no run of 31 equal
bits, so flipping any single bit of a row always changes its checksum; any other damage, two pieces exchanged, a row
copied to another address or taken from another store goes unseen once in 2^31.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from classroomkd._splitmix import GAMMA, mix

__all__ = ["row_sums"]

_TOP = np.int32(-(2**31))


@cache
def _weights(count: int) -> npt.NDArray[np.int64]:
    """(count,) odd multipliers: splitmix64 of their index, two patterns forced."""
    z = mix(np.arange(1, count + 1, dtype=np.int64) * GAMMA)
    ones = 1 | 1 << 20 | 1 << 42
    zeros = 1 << 21 | 1 << 43
    return (z | ones) & ~zeros


_ADDRESS = np.int64(0x5851F42D4C957F2D)


def row_sums(rows: npt.NDArray[np.uint8], addresses: npt.NDArray[np.int64], salt: int = 0) -> npt.NDArray[np.int32]:
    """The checksums of encoded rows.

    Args:
        rows: (B, n); each row contiguous.
        addresses: (B,), where each row belongs: ``view * samples + position``.
        salt: int64 that sets one store's rows apart from another's.

    Returns:
        (B,); never 0.
    """
    size = rows.shape[1]
    pieces: npt.NDArray[Any] = rows.view(np.int32 if size % 4 == 0 else np.int16 if size % 2 == 0 else np.uint8)
    # einsum casts piece by piece through a small buffer: three times faster than a product of int64 copies.
    total: npt.NDArray[np.int64] = np.einsum("ij,j->i", pieces, _weights(pieces.shape[1]))
    total += addresses * _ADDRESS
    total += np.int64(salt)
    upper: npt.NDArray[np.int32] = total.view(np.int32)[1::2] | _TOP
    return upper
