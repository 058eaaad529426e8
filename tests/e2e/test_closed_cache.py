"""A cache that others made and nobody here may write: used where it is complete, else refused in a sentence."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from classroomkd.cli.app import main

BANKED = ["method=classroomkd", "bank=views=2", "--quiet"]


def alone(work: Callable[[], int]) -> int:
    """The exit code of ``work`` in a process that may write only what everybody may."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> Path:
    """A folder with a run, ``first``, and the cache that it filled."""
    home = tmp_path_factory.mktemp("closed")
    assert main(["run", smoke, *quick, f"cache={home / 'cache'}", *BANKED, "--out", str(home / "first")]) == 0
    return home


@pytest.fixture
def place(first: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: the above, and one folder that everybody may write; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(first, root, dirs_exist_ok=True)
        root.chmod(0o755)
        (root / "open").mkdir()
        (root / "open").chmod(0o777)
        monkeypatch.chdir(root)
        yield root
        for path in [root / "cache", *(root / "cache").rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)


def close(folder: Path) -> dict[str, bytes]:
    """Nobody may write in it; what it holds."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_complete_cache_is_used(place: Path, quick: list[str], smoke: str) -> None:
    words = ["run", smoke, *quick, "cache=cache", *BANKED, "--out"]
    before = close(place / "cache")
    assert alone(lambda: main([*words, "open/second"])) == 0
    assert {str(p): p.read_bytes() for p in sorted((place / "cache").rglob("*")) if p.is_file()} == before
    first, second = (
        load_file(place / run / "classroomkd" / "seed0" / "student.safetensors") for run in ("first", "open/second")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_incomplete_one_is_not_mended(
    place: Path, quick: list[str], smoke: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", smoke, *quick, "cache=cache", *BANKED, "--out"]
    before = close(place / "cache")
    assert alone(lambda: main([*words, "open/second", "mentor_train.epochs=1"])) in (1, 2)
    said = capfd.readouterr().err
    assert "cache, which cannot be written: train it where it can, or give another cache=" in said
    assert "is not in" in said
    assert "Traceback" not in said
    assert {str(p): p.read_bytes() for p in sorted((place / "cache").rglob("*")) if p.is_file()} == before
