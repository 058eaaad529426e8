"""Writing files so that a reader never sees half of one. Imports nothing heavy.

Every writer here makes a temporary file in the folder of the target, flushes it to disk and renames it over the
target. A kill, a crash or a full disk leaves the old file whole.

Errors: ``DiskFull`` when the disk (or the quota) is full, ``UserError`` when the place cannot be written at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from classroomkd.errors import DiskFull, UserError

__all__ = ["amount", "atomic_write", "atomic_write_bytes", "atomic_write_text", "writing"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the last: a limit of the file system, or ulimit -f
_FORBIDDEN = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], need: int | None = None) -> Iterator[None]:
    """Turn the operating system's errors while ``path`` is written into ones a user can act on.

    For writers that cannot go through ``atomic_write`` (appending to a log, filling a memory map). ``need``: bytes of
    the file, where they are known before.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                f"no space left on the disk while writing {os.fspath(path)}{_room(path, need, error)}. Nothing already "
                "made is lost: free some space, then resume the run"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"cannot write {os.fspath(path)}: {error.strerror}; choose another place") from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", need: int | None = None) -> Iterator[IO[Any]]:
    """An open file whose content becomes ``path`` when the block ends without an exception, and vanishes otherwise.

    ``mode`` is ``"wb"`` or ``"w"`` (UTF-8, newlines as written). Missing parent folders are made. ``need``: the bytes
    it takes, for the error when there is no room.
    """
    assert mode in ("wb", "w"), mode
    target = Path(os.path.realpath(path))  # a link keeps pointing where it did; the file behind it is replaced
    with writing(path, need):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: it makes files only the owner can read, and the rename would keep that.
        temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.tmp")
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        try:
            with open(temporary, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _flush_folder(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Make ``content`` the whole of the file ``path``, or leave the file as it was."""
    with atomic_write(path, "wb", len(content)) as file:
        file.write(content)


def atomic_write_text(path: str | os.PathLike[str], content: str) -> None:
    """Make ``content`` (stored as UTF-8) the whole of the file ``path``, or leave the file as it was."""
    with atomic_write(path, "w", len(content.encode())) as file:
        file.write(content)


def amount(count: float) -> str:
    """Bytes in a unit that fits: ``12 B``, ``1.50 KiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.2f} {unit}"
    return f"{count / 1024:.2f} GiB"


def _room(path: str | os.PathLike[str], need: int | None, error: OSError) -> str:
    """What a file takes and what there is, in words; empty where the file's size is not known."""
    if need is None:
        return ""
    if error.errno == errno.EFBIG:
        return f": it takes {amount(need)}, more than a file may have there (ulimit -f, or the file system)"
    free = ""
    with contextlib.suppress(OSError):
        free = f", {amount(shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free)} are free"
    quota = " (a quota counts)" if error.errno == errno.EDQUOT else ""
    return f": it takes {amount(need)}{free}{quota}"


def _flush_folder(folder: Path) -> None:
    """Ask the file system to keep the rename itself; some (network, FUSE) cannot, and the rename stands anyway."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
