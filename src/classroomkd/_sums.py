"""Checksums beside files that are written whole: ``SHA256SUMS`` in their folder, as ``sha256sum -c`` reads it.

A cut file is noticed by whoever reads it; a flipped byte of a tensor only here. A file and its line are two writes.
While a file is replaced its list names both checksums, the old and the new one, so that a kill in between makes no good
file look damaged. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from classroomkd._files import atomic_write

__all__ = [
    "DIFFERS",
    "SUMS",
    "as_written",
    "damage",
    "forget",
    "is_listed",
    "listing",
    "sum_of",
    "unlisted",
    "write_listed",
    "writing_listed",
]

SUMS = "SHA256SUMS"
DIFFERS = "is not what was written (its checksum differs)"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_LOOKS = 3  # another process may write between reading a file and its list


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing_listed(path: Path, mode: str = "wb", need: int | None = None) -> Iterator[IO[Any]]:
    """Like :func:`classroomkd._files.atomic_write`, and the file's checksum is in its folder's list.

    Raises:
        DiskFull: no room; the old file and its checksum stay.
        UserError: the place cannot be written, or is a link.
    """
    with contextlib.ExitStack() as stack:

        def ready(temporary: Path) -> None:
            stack.enter_context(listing(path.parent, {path.name: sum_of(temporary)}))

        with atomic_write(path, mode, need, ready) as file:
            yield file


def write_listed(path: Path, content: str | bytes) -> None:
    """Make ``content`` (text as UTF-8) the whole of a file, or leave it as it was; its checksum is listed."""
    data = content.encode() if isinstance(content, str) else content
    with writing_listed(path, need=len(data)) as file:
        file.write(data)


@contextlib.contextmanager
def listing(folder: Path, sums: Mapping[str, str]) -> Iterator[None]:
    """The folder's files get the checksums ``sums`` inside the block: before it the list allows the old ones and these.

    After an exception it goes on allowing both. One process at a time.
    """
    with _alone(folder):
        before = _read(folder)
        during = {name: list(dict.fromkeys([*before.get(name, ()), value])) for name, value in sums.items()}
        after = {name: [value] for name, value in sums.items()}
        _write(folder, before, before | during)
        yield
        _write(folder, before | during, before | after, durable=False)


def forget(path: Path) -> None:
    """Take a file's line out of the list."""
    with _alone(path.parent):
        before = _read(path.parent)
        _write(path.parent, before, {name: values for name, values in before.items() if name != path.name})


def _write(folder: Path, before: Mapping[str, list[str]], after: Mapping[str, list[str]], durable: bool = True) -> None:
    """Write the list where it changes. Only what allows more must be on the disk before the file that it allows."""
    if after != before:
        lines = [f"{value}  {name}\n" for name, values in sorted(after.items()) for value in values]
        with atomic_write(folder / SUMS, "w", durable=durable) as file:
            file.write("".join(lines))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer of a folder's list at a time, where the file system can lock a folder."""
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


# --- reading ----------------------------------------------------------------------------------------------------------


def damage(path: Path) -> str | None:
    """What is wrong with a file, as the end of a sentence that begins with its name; None: nothing that can be told.

    Where no list names the file, only whether it is there and holds anything.
    """
    try:
        for _ in range(_LOOKS):
            if not path.stat().st_size:
                return "is empty"
            if not path.is_file() or not is_listed(path) or sum_of(path) in _listed(path):
                return None  # what is no plain file its reader refuses
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return DIFFERS


def as_written(path: Path, content: bytes) -> bool:
    """Whether a file's content, as it was just read, is what was written; also where no list names it."""
    wanted = _listed(path)
    return not wanted or hashlib.sha256(content).hexdigest() in wanted


def is_listed(path: Path) -> bool:
    """Whether a list has the file's checksum."""
    return bool(_listed(path))


def unlisted(path: Path) -> str | None:
    """A sentence where no list has the checksum of a file that is there; None where one has."""
    if is_listed(path) or not path.exists():
        return None
    return f"{path} stands in no {SUMS} (those of earlier versions do not): a changed byte of it may pass unnoticed"


def _listed(path: Path) -> list[str]:
    return _read(path.parent).get(path.name, [])


def _read(folder: Path) -> dict[str, list[str]]:
    """Checksums by the file's name; lines that are none are left out."""
    try:
        text = (folder / SUMS).read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if (match := _LINE.fullmatch(line)) is not None:
            found.setdefault(match[2], []).append(match[1])
    return found


def sum_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
