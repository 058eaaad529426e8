"""Views without bound in whole runs: a bank of V of them teaches what mentors say online about the same views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from banked import furthest, run, student

from classroomkd.cli.app import main
from classroomkd.errors import RunStopped
from classroomkd.run import students

VIEWS = ["randaugment", "mixup"]


def shown(out: Path, smoke: str, quick: list[str], views: str, *words: str, code: int = 0) -> dict[str, Any]:
    return run(out, smoke, quick, f"data.views={views}", "bank=views=2", *words, code=code)


@pytest.mark.parametrize("views", [pytest.param("randaugment", marks=pytest.mark.slow), "mixup"])
def test_stored_answers_teach_like_those_asked_online_about_the_same_views(
    tmp_path: Path, quick: list[str], smoke: str, views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = shown(tmp_path / "stored", smoke, quick, views)
    assert stored["bank"]["kind"] == "views=2"
    assert [m["forwards"] for m in stored["mentors"]] == [2 * 60] * 3
    # The same views, but the bank is not opened: all mentors answer in the step.
    opened = []
    with monkeypatch.context() as patch:
        patch.setattr(students, "open_bank", lambda *given: opened.append(given))
        online = shown(tmp_path / "online", smoke, quick, views)
    assert len(opened) == 1
    assert [m["forwards"] for m in online["mentors"]] == [0, 0, 0]  # nothing was left to store
    assert furthest(student(tmp_path / "stored"), student(tmp_path / "online")) < 0.02
    shown(tmp_path / "none", smoke, quick, views, "methods=[{name: none, label: classroomkd}]")
    assert furthest(student(tmp_path / "none"), student(tmp_path / "stored")) > 0.05


@pytest.mark.parametrize("views", ["randaugment", pytest.param("mixup", marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_same_to_the_bit(
    tmp_path: Path, quick: list[str], smoke: str, views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ["bank=off", "mentors=[]", "methods=[{name: none, label: classroomkd}]", "train.checkpoint_every=1"]
    shown(tmp_path / "whole", smoke, quick, views, *alone)
    keep = students.Training._checkpoint

    def killed(fit: Any) -> None:
        keep(fit)
        if fit.folder is not None and fit.progress.epoch == 1:
            raise RunStopped("killed")

    with monkeypatch.context() as patch:
        patch.setattr(students.Training, "_checkpoint", killed)
        shown(tmp_path / "cut", smoke, quick, views, *alone, code=1)
    shown(tmp_path / "cut", smoke, quick, views, *alone, "--resume")
    assert furthest(student(tmp_path / "cut"), student(tmp_path / "whole")) == 0


@pytest.mark.parametrize("views", VIEWS)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    tmp_path: Path, quick: list[str], smoke: str, views: str, capsys: Any
) -> None:
    words = [f"data.views={views}", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["run", smoke, *quick, "bank=exact", *words]) == 2
    assert f"views '{views}' have no end, so not all can be stored; use bank=views=8 or off" in " ".join(
        capsys.readouterr().err.split()
    )
    pose = ["task=pose", "data.options={train: 20, test: 10}", "data.size=null", "student=simcc_tiny", "mentors=[]"]
    assert main(["run", smoke, *[w for w in quick if "options" not in w], *pose, "method=none", *words]) == 2
    assert f"'{views}' moves pixels but not joints" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_auto_counts_them_as_unbounded(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    for views in VIEWS:
        for epochs, kind in ((3, "off"), (30, "views=8")):
            capsys.readouterr()
            words = [f"data.views={views}", f"train.epochs={epochs}", "--out", str(tmp_path / "run"), "--dry-run"]
            assert main(["run", smoke, *quick, *words, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["bank"]["kind"] == kind
    assert main(["run", smoke, *quick, "data.views=rand_augment", "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'randaugment'" in " ".join(capsys.readouterr().err.split()).replace("`", "'")
