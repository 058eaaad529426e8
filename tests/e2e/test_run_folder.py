"""Whose folder it is: no other folder is taken for a run's, and no finished run is done again by a second start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classroomkd.cli.app import main
from classroomkd.run import session


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_without_a_recipe_is_not_resumed(
    tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.json").write_text("mine")
    assert main(["run", smoke, *quick, "--out", str(tmp_path), "--resume", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} is no run folder" in said
    assert "choose another --out, or put its recipe.yaml back" in said
    assert bytes_of(tmp_path) == {"summary.json": b"mine"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_was_stopped_before_it_wrote_anything(
    tmp_path: Path, quick: list[str], smoke: str, resume: bool
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".recipe.yaml.0123abcd.tmp").write_text("na")
    assert main(["run", smoke, *quick, "method=none", "--out", str(out), "--quiet", *["--resume"] * resume]) == 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_finished_meanwhile(
    tmp_path: Path,
    finished: Path,
    quick: list[str],
    smoke: str,
    resume: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Between a start's first look at the folder and its lock, the whole run is done by another."""
    out, looked = tmp_path / "run", session.check_space

    def meanwhile(*networks_and_folder: Any) -> None:
        looked(*networks_and_folder)
        shutil.copytree(finished, out)

    monkeypatch.setattr(session, "check_space", meanwhile)
    words = [smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", str(out), "--quiet"]
    code = main(["run", *words, *["--resume"] * resume])
    students = {name: content for name, content in bytes_of(finished).items() if "seed" in name}
    if resume:
        assert code == 0
    else:
        assert code == 2
        assert f"{out} exists already; add --resume" in capsys.readouterr().err
    assert {name: content for name, content in bytes_of(out).items() if "seed" in name} == students


def test_another_recipes_run_meanwhile(
    tmp_path: Path,
    finished: Path,
    quick: list[str],
    smoke: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, looked = tmp_path / "run", session.check_space

    def meanwhile(*networks_and_folder: Any) -> None:
        looked(*networks_and_folder)
        shutil.copytree(finished, out)

    monkeypatch.setattr(session, "check_space", meanwhile)
    words = [smoke, *quick, "methods=[none,classroomkd]", "train.lr=0.3", "--out", str(out), "--quiet", "--resume"]
    assert main(["run", *words]) == 2
    said = capsys.readouterr().err
    assert "was made by another recipe" in said
    assert "train.lr" in said
    assert bytes_of(out) == bytes_of(finished)


HOLDER = """
import sys
from classroomkd._files import open_lock
from classroomkd._locks import hold
with open_lock(sys.argv[1]) as file, hold(file, None):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_who_works_in_it_is_said(
    tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pipe = tmp_path / "run", subprocess.PIPE
    out.mkdir()
    words = [sys.executable, "-c", HOLDER, str(out / ".lock"), "one that came before"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert main(["run", smoke, *quick, "method=none", "--out", str(out), "--quiet"]) == 2
        other.kill()
    said = capsys.readouterr().err
    assert f"another process is working in {out} (process {other.pid} on " in said
    assert "'one that came before'); wait for it, or choose another --out" in said
