"""Checksums beside files that are written whole: ``SHA256SUMS`` in their folder, as ``sha256sum -c`` reads it.

A cut file is noticed by whoever reads it; a flipped byte of a tensor only here. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from classroomkd._files import atomic_write_text

__all__ = ["SUMS", "damage", "is_listed", "write_sums"]

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Iterable[str], known: Mapping[str, bytes] | None = None) -> None:
    """Write the checksums of a folder's files as they are on the disk now.

    Args:
        folder: of the files.
        names: of the files.
        known: content of further files by name, which are going to be written.
    """
    sums = {name: _sum(folder / name) for name in names}
    sums |= {name: hashlib.sha256(content).hexdigest() for name, content in (known or {}).items()}
    atomic_write_text(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sums.items()))


def damage(path: Path) -> str | None:
    """What is wrong with a file, as the end of a sentence that begins with its name; None: nothing that can be told.

    Where no list names the file, only whether it is there and holds anything.
    """
    try:
        if not path.stat().st_size:
            return "is empty"
        wanted = _listed(path)
        if wanted is not None and _sum(path) != wanted:
            return "is not what was written (its checksum differs)"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def is_listed(path: Path) -> bool:
    """Whether a list has the file's checksum."""
    return _listed(path) is not None


def _listed(path: Path) -> str | None:
    try:
        lines = (path.parent / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        value, _, listed = line.partition("  ")
        if listed == path.name:
            return value
    return None


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
