"""A student is scored on the images its run was made with, or it is said that they are others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from classroomkd import data
from classroomkd.cli.app import main
from classroomkd.data import puppets


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Without checksums of what the tests change in it."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """A source of a few images of the student's classes."""
    for i, label in enumerate(puppets.CLASSES):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(8):
            Image.new("RGB", (32, 32), (20 * i, 20 * k, 90)).save(tmp_path / "photos" / label / f"{k}.png")
    return f"imagefolder:{tmp_path / 'photos'}"


def test_images_that_changed_are_not_scored_as_the_runs_own(run: Path, capsys: Any) -> None:
    student = str(run / "none" / "seed0")
    assert main(["evaluate", student, "--part", "all", "--json"]) == 0
    assert capsys.readouterr().err == ""
    text = (run / "recipe.yaml").read_text()
    assert "test: 40" in text
    (run / "recipe.yaml").write_text(text.replace("test: 40", "test: 44"))
    for part in ("test", "all"):
        assert main(["evaluate", student, "--part", part]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert f"{run} was made with other images or another split of 'puppets' than there are now" in said.err
        assert "put them back, or say that others are meant: --data SOURCE" in said.err


def test_another_split_of_the_same_images(run: Path, capsys: Any) -> None:
    made = json.loads((run / "data.json").read_text())
    made["parts"]["test"] = made["parts"]["val"]
    (run / "data.json").write_text(json.dumps(made))
    assert main(["evaluate", str(run / "none" / "seed0")]) == 2
    assert "another split" in capsys.readouterr().err
    assert main(["evaluate", str(run / "none" / "seed0"), "--part", "val"]) == 0


def test_images_that_are_named_are_told_apart(run: Path, photos: str, tmp_path: Path, capsys: Any) -> None:
    student = str(run / "none" / "seed0" / "student.safetensors")
    assert main(["evaluate", student, "--data", photos, "--part", "val", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "note: these are other images than those of the student's run\n"
    json.loads(said.out)
    shutil.copy(student, tmp_path / "alone.safetensors")
    assert main(["evaluate", str(tmp_path / "alone.safetensors"), "--data", photos, "--part", "val", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_the_runs_own_images_named(run: Path, photos: str, capsys: Any) -> None:
    """What is scored of them by default includes what the student learned from."""
    whole = json.loads((run / "data.json").read_text())
    whole["fingerprint"] = data.load({"source": photos, "size": 32}).fingerprint
    (run / "data.json").write_text(json.dumps(whole))
    student = str(run / "none" / "seed0")
    for part, told in (("val", ""), ("train", ", those it was taught with among them")):
        assert main(["evaluate", student, "--data", photos, "--part", part, "--json"]) == 0
        assert capsys.readouterr().err == f"note: these are the images of the student's run{told}\n"
