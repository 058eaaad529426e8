"""A mentor's answers to a part of the data, kept beside it: numpy's format, and a checksum behind it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from classroomkd._stored import Damaged, trusted
from classroomkd._sums import damage, is_listed, writing_listed

__all__ = ["load_answers", "save_answers"]

_MARK = b"sha256:"  # before the checksum's 32 bytes; numpy's reader stops before both
_TAIL = len(_MARK) + 32
_PIECE = 2**20


def save_answers(path: Path, answers: NDArray[Any]) -> None:
    """Store answers (N, …), whole or not at all."""
    with writing_listed(path) as file:
        np.save(file, answers, allow_pickle=False)
        file.flush()
        with open(file.name, "rb") as written:
            file.write(_MARK + _checksum(written, written.seek(0, 2)))


def load_answers(path: str | Path, samples: int | None = None) -> NDArray[np.float32]:
    """Stored answers (N, …) float32.

    Args:
        path: the file.
        samples: N, where it is known.

    Raises:
        UserError: cut, changed, or of other samples. Files of earlier versions have no checksum and are believed.
    """
    with trusted(path, "remove it, and the mentor is asked again"):
        if not Path(path).is_file():
            raise Damaged("is no plain file" if Path(path).exists() else "is not there")
        if is_listed(Path(path)) and (wrong := damage(Path(path))) is not None:
            raise Damaged(wrong)
        with open(path, "rb") as file:
            length = file.seek(0, 2) - _TAIL
            file.seek(max(length, 0))
            tail = file.read()
            marked = tail.startswith(_MARK)
            if marked and _checksum(file, length) != tail[len(_MARK) :]:
                raise Damaged("was changed (its checksum is another)")
        answers = np.load(path, mmap_mode="r", allow_pickle=False)  # a map: what is not there is not made
        if not isinstance(answers, np.memmap) or answers.dtype != np.float32 or answers.ndim < 2:
            raise Damaged("holds no answers")
        if answers.offset + answers.nbytes != length + (0 if marked else _TAIL):
            raise Damaged("is longer than its answers")
        if samples is not None and len(answers) != samples:
            raise Damaged(f"holds {len(answers):,} answers, not {samples:,}")
        return np.array(answers)


def _checksum(file: IO[bytes], length: int) -> bytes:
    """SHA-256 of the first ``length`` bytes."""
    total = hashlib.sha256()
    file.seek(0)
    for start in range(0, length, _PIECE):
        total.update(file.read(min(_PIECE, length - start)))
    return total.digest()
