"""Writing files so that a reader never sees half of one. Imports nothing heavy.

Every writer here makes a temporary file in the folder of the target, flushes it to disk and renames it over the
target. A kill, a crash or a full disk leaves the old file whole.

Errors: ``RunStopped`` when the disk (or the quota) is full, ``UserError`` when the place cannot be written at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from classroomkd.errors import RunStopped, UserError

__all__ = ["atomic_write", "atomic_write_bytes", "atomic_write_text", "writing"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
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
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the operating system's errors while ``path`` is written into ones a user can act on.

    For writers that cannot go through ``atomic_write`` (appending to a log, filling a memory map).
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunStopped(
                f"no space left on the disk while writing {os.fspath(path)}. Nothing already made is lost: free some "
                "space, then resume the run"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"cannot write {os.fspath(path)}: {error.strerror}; choose another place") from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """An open file whose content becomes ``path`` when the block ends without an exception, and vanishes otherwise.

    ``mode`` is ``"wb"`` or ``"w"`` (UTF-8, newlines as written). Missing parent folders are made.
    """
    assert mode in ("wb", "w"), mode
    target = Path(os.path.realpath(path))  # a link keeps pointing where it did; the file behind it is replaced
    with writing(path):
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
    with atomic_write(path, "wb") as file:
        file.write(content)


def atomic_write_text(path: str | os.PathLike[str], content: str) -> None:
    """Make ``content`` (stored as UTF-8) the whole of the file ``path``, or leave the file as it was."""
    with atomic_write(path, "w") as file:
        file.write(content)


def _flush_folder(folder: Path) -> None:
    """Ask the file system to keep the rename itself; some (network, FUSE) cannot, and the rename stands anyway."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
