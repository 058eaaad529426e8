"""Writing files so that a reader never sees half of one, and nothing outside is touched. Imports nothing heavy.

Every writer here makes a temporary file in the folder of the target, flushes it to disk and renames it over the
target. A kill, a crash or a full disk leaves the old file whole.

A run folder or a cache may come from somebody else, and a link in it would lead a writer to any file of the user's. So
a folder that the user typed may be a link, and nothing below it: what would be written through one is refused.

Raises:
    DiskFull: the disk (or the quota) is full.
    UserError: the place cannot be written at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from classroomkd._printable import REPLACED
from classroomkd.errors import DiskFull, UserError

__all__ = [
    "amount",
    "atomic_write",
    "atomic_write_bytes",
    "atomic_write_text",
    "may_write",
    "open_inside",
    "open_lock",
    "refuse_links",
    "refuse_links_below",
    "refuse_no_text",
    "writing",
]

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
        if error.errno == errno.ELOOP:  # of a file that was opened without following
            raise _linked(path) from error
        if error.errno in _FULL:
            raise DiskFull(
                f"no space left on the disk while writing {os.fspath(path)}{_room(path, need, error)}. Nothing already "
                "made is lost: free some space, then resume the run"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"cannot write {os.fspath(path)}: {error.strerror}; choose another place") from error
        raise


def _linked(path: str | os.PathLike[str]) -> UserError:
    """The sentence for a link where something is to be written."""
    try:
        target = f" to {os.readlink(path)}"
    except OSError:
        target = ""
    return UserError(
        f"cannot write {os.fspath(path)}: it is a link{target}, and what is written must stay in its folder; put what "
        "it leads to in its place, or remove it"
    )


def refuse_links(root: str | os.PathLike[str], *names: str) -> Path:
    """The path ``root/names[0]/names[1]/…``, of which ``root`` alone may be a link.

    Raises:
        UserError: naming a link among the others.
    """
    place = Path(root)
    for name in names:
        place = place / name
        if place.is_symlink():
            raise _linked(place)
    return place


def refuse_links_below(folder: str | os.PathLike[str]) -> None:
    """Look through a folder, and all folders in it, for links; the folder itself may be one, or be absent.

    Raises:
        UserError: naming the first.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # absent, or not ours to look at: then not ours to write, either
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                raise _linked(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def refuse_no_text(path: str | os.PathLike[str]) -> None:
    """Refuse a place whose name holds bytes that are no text: some of what is to be written there cannot be.

    Raises:
        UserError: naming it.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        name = os.fspath(path).encode(errors=REPLACED).decode()
        raise UserError(f"the path {name} holds bytes that are no text (UTF-8); choose another place") from error


def may_write(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder can be written; of one that is not there, whether it can be made."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK)


def open_inside(path: str | os.PathLike[str], flags: int) -> int:
    """``os.open`` for writing, of a plain file that is no link; made where ``flags`` say so, never waited for.

    Raises:
        OSError: ``ELOOP`` for a link (``writing`` says it), and what ``os.open`` raises; ``EEXIST`` for a folder, a
            pipe or a device in its place.
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EEXIST, "it is no plain file", os.fspath(path))
    return handle


def open_lock(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file to lock, made when it is not there; what is in it stays.

    Raises:
        UserError: it is a link or no file, or the place cannot be written.
    """
    with writing(path):
        return os.fdopen(open_inside(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "wb",
    need: int | None = None,
    ready: Callable[[Path], None] | None = None,
    durable: bool = True,
) -> Iterator[IO[Any]]:
    """An open file whose content becomes ``path`` when the block ends without an exception, and vanishes otherwise.

    ``mode`` is ``"wb"`` or ``"w"`` (UTF-8, newlines as written; what is no text becomes replacement characters).
    Missing parent folders are made. A link in the file's place is refused: what it leads to may be anybody's. ``need``:
    the bytes it takes, for the error where there is no room. ``ready`` is called with the temporary file when it is
    whole, just before it is renamed. ``durable``: the disk is waited for, so that a power cut leaves the old or the new
    file, too.
    """
    assert mode in ("wb", "w"), mode
    target = Path(path)
    if target.is_symlink():
        raise _linked(path)
    with writing(path, need):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: it makes files only the owner can read, and the rename would keep that.
        temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.tmp")
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": REPLACED}
        try:
            with open(temporary, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if ready is not None:
                ready(temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            _flush_folder(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Make ``content`` the whole of the file ``path``, or leave the file as it was."""
    with atomic_write(path, "wb", len(content)) as file:
        file.write(content)


def atomic_write_text(path: str | os.PathLike[str], content: str) -> None:
    """Make ``content`` (stored as UTF-8) the whole of the file ``path``, or leave the file as it was."""
    with atomic_write(path, "w", len(content.encode(errors=REPLACED))) as file:
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
