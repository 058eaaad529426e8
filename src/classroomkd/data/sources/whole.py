"""Whether a picture's file is whole, by its end: copies that broke off lack it. Cheap beside decoding."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["may_be_cut_off"]

_TAIL = 64 * 1024  # cameras write more behind a picture's end
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG", b"IEND"
_RIFF = b"RIFF"


def may_be_cut_off(path: Path) -> bool:
    """Whether a file lacks the end that its format has, or is of a format whose end is not known here.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(8)
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _TAIL))
        tail = file.read(_TAIL)
    if head.startswith(_JPEG):
        return _JPEG_END not in tail
    if head.startswith(_PNG):
        return _PNG_END not in tail
    if head.startswith(_RIFF):
        return int.from_bytes(head[4:8], "little") + 8 > length
    return True
