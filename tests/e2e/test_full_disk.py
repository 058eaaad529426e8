"""No room for a checkpoint or a student: one sentence with the bytes and the command, and nothing made is lost."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spoken import ending

from classroomkd import _files
from classroomkd.cli.app import main
from classroomkd.errors import DiskFull
from classroomkd.train import checkpoint


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As ``ulimit -f``: the system refuses what is larger, in the middle of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [10, 1000, 100_000, 1_199_000])
def test_a_checkpoint_without_room_leaves_the_old_one(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(path, {"epoch": 1, "learner": {"a": torch.ones(300_000)}})
    with largest_file(size), pytest.raises(DiskFull, match=r"last\.pt: it takes 1\.14 MiB, more than a file may have"):
        checkpoint.save(path, {"epoch": 2, "learner": {"a": torch.zeros(300_000)}})
    assert checkpoint.load(path)["epoch"] == 1
    assert {file.name for file in path.parent.iterdir()} == {path.name, "SHA256SUMS"}


@pytest.fixture
def fill_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The disk is full from the first file of this name on."""

    def arrange(name: str) -> None:
        plain, full = _files.os.fsync, []

        def fsync(handle: int) -> None:
            if full or name in Path(f"/proc/self/fd/{handle}").resolve().name:
                full.append(1)
                raise OSError(errno.ENOSPC, "No space left on device")
            plain(handle)

        monkeypatch.setattr(_files.os, "fsync", fsync)

    return arrange


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["last.pt", pytest.param("student.safetensors", marks=pytest.mark.slow), "entry.json"])
def test_one_sentence_and_the_command(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, fill_up: Any
) -> None:
    words = [
        "run",
        smoke,
        *quick,
        "method=none",
        "seeds=[0,1]",
        "train.epochs=1",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    with monkeypatch.context():
        fill_up(name)
        assert main(words) == 1
        said = ending(capsys)
        monkeypatch.undo()
    assert said.startswith(f"error: no space left on the disk while writing {tmp_path}/run/none/seed0/")
    assert f"{name}: it takes " in said
    assert "KiB, " in said or " B, " in said
    assert " are free" in said
    assert said.count("\n") == 2
    assert said.splitlines()[1].startswith("to go on: classroomkd run ")
    assert said.rstrip().endswith("--resume")
    assert main([*words, "--resume"]) == 0
    assert len([load_file(path) for path in (tmp_path / "run").glob("none/*/student.safetensors")]) == 2


def test_students_and_checkpoints_are_asked_for_before(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda place: plain(place)._replace(free=100_000))
    words = ["run", smoke, *quick, "method=none", "seeds=[0,1,2]", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "the students and their checkpoints take " in said
    assert "has 97.66 KiB free" in said
    assert not (tmp_path / "run").exists()
