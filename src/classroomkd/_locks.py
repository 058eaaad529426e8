"""Locks between processes that say who holds them. A lock goes with its process. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from classroomkd._printable import printable

__all__ = ["Held", "hold"]

PATIENCE = 2.0  # seconds before it is said that a lock is waited for
_MOST = 4096  # bytes that are read of a lock


class Held(Exception):
    """Another process holds a lock; the text says which one, or nothing where it cannot be told."""


@contextlib.contextmanager
def hold(file: IO[bytes], wait: Callable[[str], None] | None) -> Iterator[None]:
    """Hold a lock, and write into its file who holds it, since when, and what was typed.

    Args:
        file: the lock, opened for reading and writing; what was in it is replaced.
        wait: called once with who holds it, when it has been waited for a while; None: it is not waited for.

    Raises:
        Held: another process holds it, and ``wait`` is None.
    """
    if not _taken(file):
        if wait is None:
            raise Held(_holder(file))
        until = time.monotonic() + PATIENCE
        while not (taken := _taken(file)) and time.monotonic() < until:
            time.sleep(0.05)
        if not taken:
            wait(_holder(file))
            fcntl.lockf(file, fcntl.LOCK_EX)
    _write(file, _own())
    try:
        yield
    finally:
        _write(file, b"")


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # of another process
        return False
    return True


def _own() -> bytes:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "since": since, "command": command}).encode()


def _write(file: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError):  # the lock holds without it
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), content, 0)


def _holder(file: IO[bytes]) -> str:
    """``process 7 on host since 2026-01-31 09:00 UTC: classroomkd run …``; empty where the lock does not say."""
    try:
        about = json.loads(os.pread(file.fileno(), _MOST, 0))
        text = f"process {int(about['pid'])} on {about['host']} since {about['since']}: {about['command']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return str(printable(" ".join(text.split())))
