"""How much a small file may become: bounds on everything that is unpacked or decoded. Imports nothing heavy.

Compressed files say how large they are inside, and a few megabytes can say gigabytes. So what is declared is checked
before anything is unpacked, and reading stops where it was declared to end. The bounds lie far above all real data:
texts of annotations shrink to a tenth, pictures hardly at all, and a picture of 64 megapixels is larger than what
cameras make.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

__all__ = [
    "MOST_PICTURE",
    "MOST_PIXELS",
    "MOST_SIDE",
    "CutOff",
    "TooLarge",
    "check_pixels",
    "check_unpacked",
    "check_zip",
    "read_exactly",
]

MOST_PIXELS = 64_000_000
"""Of one picture, as it is stored."""

MOST_SIDE = 8000
"""Pixels of a side that a network is given: its square has as many as the largest picture."""

MOST_PICTURE = 4 * MOST_PIXELS
"""Bytes of a picture's file."""

PLAIN = 64 * 2**20
"""Bytes that anything may unpack to."""

RATIO = 100
"""More than :data:`PLAIN` is unpacked where it is at most so many times what it takes packed."""


class TooLarge(ValueError):
    """Beyond a bound; the text says by how much, and the caller says in which file."""


class CutOff(EOFError):
    """Shorter than declared; the text says by how much."""


def check_pixels(width: int, height: int) -> None:
    """Raise :class:`TooLarge` for a picture of more than 64 megapixels, before it is decoded."""
    if width * height > MOST_PIXELS:
        raise TooLarge(
            f"it has {width}x{height} pixels, {width * height / 1e6:.0f} million; at most {MOST_PIXELS // 10**6} "
            "million are decoded: make it smaller"
        )


def check_unpacked(size: int, packed: int, most: int | None = None) -> None:
    """Raise :class:`TooLarge` where ``size`` bytes are to come out of ``packed``, and that is no real data.

    ``most``: bytes that are never exceeded.
    """
    bound = max(PLAIN, RATIO * packed)
    bound = bound if most is None else min(bound, most)
    if size > bound:
        raise TooLarge(f"it unpacks to {_mib(size)} from {_mib(packed)}; at most {_mib(bound)} are unpacked")


def check_zip(path: str | Path) -> None:
    """Raise :class:`TooLarge` where a member of a zip archive declares too much.

    Raises also what ``zipfile`` does for a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                check_unpacked(member.file_size, member.compress_size)
            except TooLarge as error:
                raise TooLarge(f"{member.filename}: {error}") from None


def read_exactly(file: IO[bytes], size: int) -> bytes:
    """``size`` bytes, and nothing behind them.

    Raises:
        TooLarge: there are more; they stay where they are.
        CutOff: there are fewer.
    """
    content = file.read(size + 1)
    if len(content) > size:
        raise TooLarge(f"it holds more than the {size:,} bytes that it declares")
    if len(content) < size:
        raise CutOff(f"it ends after {len(content):,} of {size:,} bytes")
    return content


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
