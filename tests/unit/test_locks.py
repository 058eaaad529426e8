"""Locks say who holds them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from classroomkd import _locks
from classroomkd._files import open_lock
from classroomkd._locks import Held, hold

HOLDER = """
import sys, pathlib
from classroomkd._files import open_lock
from classroomkd._locks import hold
with open_lock(sys.argv[1]) as file, hold(file, None):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(path: Path, *typed: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HOLDER, str(path), *typed]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


def test_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with held(path, "a b", "\x1b[2J") as other, open_lock(path) as file:
        with pytest.raises(Held) as caught, hold(file, None):
            pass
        told = str(caught.value)
        assert told.startswith(f"process {other.pid} on {platform.node()} since 20")
        assert told.endswith(f"UTC: -c {path} 'a b' '\\x1b[2J'")
        for content in (b"", b"{", b'{"pid": "x"}', b"[" * 9999, b"\xff"):
            path.write_bytes(content)
            with pytest.raises(Held) as caught, hold(file, None):
                pass
            assert str(caught.value) == ""


def test_who_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_locks, "PATIENCE", 0.1)
    path, waited = tmp_path / ".lock", list[str]()
    with held(path) as other, open_lock(path) as file:

        def wait(holder: str) -> None:
            waited.append(holder)
            other.kill()

        with hold(file, wait):
            assert str(os.getpid()).encode() in path.read_bytes()
    assert len(waited) == 1
    assert f"process {other.pid} on" in waited[0]
    assert path.read_bytes() == b""
    with open_lock(path) as file, hold(file, pytest.fail):
        pass
