"""What stands between the bank and the file system: errors a user can act on, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from classroomkd._files import open_inside, refuse_links
from classroomkd._locks import hold
from classroomkd.errors import RunStopped, UserError

__all__ = ["LOCK", "locked", "may_write", "storing", "touch"]

LOCK = ".lock"

log = logging.getLogger("classroomkd")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the operating system's errors while ``path`` is opened or written into ones a user can act on.

    Raises:
        RunStopped: the disk, or what the user may have of it, is full.
        UserError: ``path`` cannot be opened or written at all.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunStopped(
                f"bank: no space left for {path}; what is stored stays good: free some space and go on, or use fewer"
                " views, bank=off, or another cache="
            ) from error
        if error.errno == errno.ELOOP:
            raise UserError(
                f"bank: {path} is a link, and rows are never written through one: put what it leads to in its place, "
                "or give another cache="
            ) from error
        if error.errno in _CLOSED:
            raise UserError(f"bank: cannot open {path}: {error.strerror}; mend it or give another cache=") from error
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer of the folder's manifest and file sizes at a time, also between processes; not to be nested.

    Raises:
        UserError: the folder or its lock cannot be written, or is a link.
    """
    if folder.name:  # not the current folder
        refuse_links(folder.parent, folder.name)
    path = folder / LOCK
    with storing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_inside(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
    with file, hold(file, lambda holder: log.warning("bank: waiting for %s: %s", folder, holder or "another process")):
        yield


def may_write(folder: Path) -> bool:
    """Whether rows of the store ``folder`` can be written; of one that is not there, whether it can be made."""
    if not folder.exists():
        return os.access(folder.parent, os.W_OK)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return False
    return all(os.access(p, os.W_OK) for p in folder.iterdir() if p.name == LOCK or p.suffix == ".bin")


def touch(folder: Path) -> None:
    """Leave a mark that the store is in use, where that is allowed; gc goes by it."""
    with contextlib.suppress(OSError):
        os.utime(folder / LOCK, follow_symlinks=False)
