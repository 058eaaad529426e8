"""What the answers depend on: any change of it asks the mentors again, and the user is told what differs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from classroomkd import models
from classroomkd.cli.app import main

RECIPE = """
data: {{source: puppets, options: {{train: 40, test: 20, image_size: 32}}, limit: 30}}
student: {{model: convnet8, samples: 16}}
mentors: [{{name: teacher, model: convnet8, checkpoint: {weights}}}]
method: average
train: {{epochs: 2, batch_size: 16}}
mentor_precision: fp32
workers: 1
threads: 1
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and a cache with its answers to two views."""
    folder = tmp_path_factory.mktemp("key")
    torch.manual_seed(0)
    models.save_checkpoint(models.create("convnet8", 10), folder / "teacher.safetensors", {})
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.format(weights=folder / "teacher.safetensors"))
    assert main(["bank", "fill", str(recipe), "bank=views=2", f"cache={folder / 'cache'}", "--quiet"]) == 0
    return recipe, folder / "cache"


def fill(stored: tuple[Path, Path], cache: Path, words: list[str], capsys: Any, code: int = 0) -> str:
    """What ``bank fill`` says on stderr, in one line."""
    capsys.readouterr()
    assert main(["bank", "fill", str(stored[0]), "bank=views=2", f"cache={cache}", *words]) == code
    said: str = capsys.readouterr().err
    return said.replace("\n", " ")


CHANGES = {
    "view seed": (["data.view_seed=1"], r"for other views ("),
    "views": (["data.views=flip"], r"for other views ("),
    "V": (["bank=views=3"], r"for another number of views (2 there, 3 here)"),
    "mean": (["mentors.0.mean=[0.1,0.2,0.3]", "mentors.0.std=[0.2,0.2,0.2]"], "another preprocessing (mean)"),
    "std": (["mentors.0.mean=[0.5,0.5,0.5]", "mentors.0.std=[0.1,0.2,0.3]"], "another preprocessing (std)"),
    "mentor's size": (["mentors.0.size=24"], "another preprocessing (size)"),
    "mentor's precision": (["mentor_precision=bf16"], "another precision ("),
    "data": (["data.options.hard=0.4"], "other data ("),
    "split": (["data.split_seed=1"], "other samples ("),
    "limit": (["data.limit=25"], "other samples ("),
    "shard": (["data.shard=1/2"], "other samples ("),
    "student's samples": (["student.samples=20"], "another number of samples (16 there, 20 here)"),
    "form": (["bank=views=2,top=3"], "another form (fp16 (10,) there, top-3 of 10 here)"),
    "version": ([], "another version ("),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_key_asks_again_and_says_what_differs(
    stored: tuple[Path, Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    words, noun = CHANGES[change]
    cache = tmp_path / "cache"
    shutil.copytree(stored[1], cache)
    if change == "version":
        monkeypatch.setattr("classroomkd.run.mentor_cache.__version__", "999.1.0")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "bank" and access(path, mode))
    said = fill(stored, cache, words, capsys, code=2)
    assert "answers of mentor 'teacher' in" in said
    assert noun in said
    assert "cannot be written" in said
    monkeypatch.setattr(os, "access", access)
    said = fill(stored, cache, words, capsys)
    assert "note: bank: the answers of mentor 'teacher' in" in said
    assert noun in said
    assert "teacher: 0 samples answered now" not in said
    assert "samples answered now" in said
    said = fill(stored, cache, words, capsys)
    assert said.count("note:") == said.count("note: bank: top-3 leaves out") == (change == "form")
    assert "teacher: 0 samples answered now" in said


def test_what_does_not_matter_is_reused_where_nothing_can_be_written(
    stored: tuple[Path, Path], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "bank" and access(path, mode))
    said = fill(stored, stored[1], ["seeds=[3]", "student.model=convnet16", "method=kd", "train.batch_size=8"], capsys)
    assert "teacher: 0 samples answered now" in said
    assert "note:" not in said


def test_a_run_warns_of_what_differs(stored: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(stored[1], tmp_path / "cache")
    words = ["bank=views=2", "train.epochs=1", f"cache={tmp_path / 'cache'}", "--out", str(tmp_path / "run")]
    assert main(["run", str(stored[0]), *words, "data.view_seed=1"]) == 0
    assert "warning: bank: the answers of mentor 'teacher' in" in capsys.readouterr().err.replace("\n", " ")


def test_another_runs_data_are_no_reason_to_worry(stored: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(stored[1], tmp_path / "cache")
    words = ["bank=views=2", "train.epochs=1", f"cache={tmp_path / 'cache'}", "--out", str(tmp_path / "run")]
    assert main(["run", str(stored[0]), *words, "data.options.hard=0.4"]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "note: bank: the answers of mentor 'teacher' in" in said
    assert "as is usual where runs share a cache; they stay" in said
    assert "warning: bank" not in said


def test_nothing_stored_at_all_is_no_mismatch(stored: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    assert "note:" not in fill(stored, tmp_path / "new", [], capsys)
