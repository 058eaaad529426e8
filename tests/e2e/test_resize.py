"""``data.resize`` from a recipe to the student's file and its predictions; runs and files of versions without it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from classroomkd import models
from classroomkd.cli.app import main
from classroomkd.export import load_student
from classroomkd.models.checkpoints import read_checkpoint

PADDED = "so it is of a version that padded them: resize: pad"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures of two classes that differ at the left side only, smaller and larger than the network's input."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for label, colour in (("blue", (20, 40, 230)), ("red", (230, 40, 20))):
        (folder / label).mkdir()
        for i in range(24):
            height = int(draw.integers(14, 50))
            image = draw.integers(0, 90, (height, 3 * height, 3), dtype=np.uint8)
            image[:, : height // 2] = colour
            Image.fromarray(image).save(folder / label / f"{i}.png")
    return folder


def run(photos: Path, out: Path, *more: str) -> list[str]:
    recipe = out.parent / "recipe.yaml"
    if not recipe.exists():
        content = {
            "data": {"source": f"imagefolder:{photos}", "size": 32, "views": "none", "test_fraction": 0.25},
            "student": "convnet8", "method": "none", "seeds": [0], "workers": 1, "threads": 1, "device": "cpu",
            "cache": str(out.parent / "cache"),
            "train": {"epochs": 1, "batch_size": 8, "optimizer": "adamw", "lr": 5e-3},
        }  # fmt: skip
        recipe.write_text(yaml.safe_dump(content))
    return ["run", str(recipe), "--out", str(out), "--quiet", *more]


def test_a_student_says_its_rule_and_predicts_by_it(photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(run(photos, out, "data.resize=letterbox", "train.epochs=4")) == 0
    student = next(out.rglob("student.safetensors"))
    about = read_checkpoint(student, what="student")[1]
    assert json.loads(about["preprocessing"])["resize"] == load_student(student).resize == "letterbox"
    assert yaml.safe_load((out / "recipe.yaml").read_text())["data"]["resize"] == "letterbox"
    capsys.readouterr()
    assert main(["evaluate", str(student), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    shutil.copy(student, tmp_path / "alone.safetensors")
    assert main(["evaluate", str(tmp_path / "alone.safetensors"), "--data", f"imagefolder:{photos}", "--part", "all",
                 "--json"]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "padded" not in said.err
    assert main(["predict", str(tmp_path / "alone.safetensors"), str(photos), "--out", str(tmp_path / "p.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    right = sum(row["class"] == Path(row["file"]).parent.name for row in rows) / len(rows)
    assert right == pytest.approx(json.loads(said.out)["accuracy"])
    assert own["accuracy"] > 0.9, "the side that tells the classes apart is in the picture"


def test_what_is_cut_off_is_said(photos: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(run(photos, tmp_path / "run", "--dry-run")) == 0
    said = "".join(capsys.readouterr())
    assert "crop cuts 67% on average off 48 of 48 pictures" in " ".join(said.split())
    assert "letterbox" in said


def _older(out: Path) -> Path:
    """Make a run folder one of a version without the key; returns its student."""
    for sums in out.rglob("SHA256SUMS"):
        sums.unlink()
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe.pop("schema") == 2
    del recipe["data"]["resize"]
    (out / "recipe.yaml").write_text(yaml.safe_dump({"schema": 1, **recipe}))
    student = next(out.rglob("student.safetensors"))
    tensors, about = read_checkpoint(student, what="student")
    known = json.loads(about["preprocessing"])
    del known["resize"]
    models.save_checkpoint(tensors, student, {**about, "preprocessing": json.dumps(known)})
    return student


def test_a_run_and_a_file_without_the_key_mean_pad(photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(run(photos, out, "data.resize=pad")) == 0
    student = _older(out)
    capsys.readouterr()
    assert main(["evaluate", str(student), "--json"]) == 0  # the run's own pictures are padded as they were
    own = capsys.readouterr()
    assert "padded" not in own.err
    shutil.copy(student, tmp_path / "alone.safetensors")
    assert load_student(tmp_path / "alone.safetensors").resize == "pad"
    for command in (["evaluate", "--data", f"imagefolder:{photos}", "--part", "all"], ["predict", str(photos)]):
        verb, *rest = command
        assert main([verb, str(tmp_path / "alone.safetensors"), *rest, "--json"]) == 0
        assert " ".join(capsys.readouterr().err.split()).count(PADDED) == 1

    # The recipe that made it has no key, and would crop now.
    assert main(run(photos, out, "--resume")) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "now data.resize is crop: data.resize=pad goes on with it" in said
    assert main(run(photos, out, "--resume", "data.resize=pad")) == 0
    assert yaml.safe_load((out / "recipe.yaml").read_text())["data"]["resize"] == "pad"


def test_a_run_whose_pictures_had_their_size_goes_on(tmp_path: Path, finished: Path, smoke: str, quick: Any) -> None:
    shutil.copytree(finished, tmp_path / "run")
    _older(tmp_path / "run")
    words = ["run", smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", str(tmp_path / "run")]
    assert main([*words, "--quiet", "--resume"]) == 0


def test_a_recipe_of_version_1(tmp_path: Path, photos: Path, capsys: Any) -> None:
    words = run(photos, tmp_path / "run", "--dry-run")
    (tmp_path / "recipe.yaml").write_text("schema: 1\n" + (tmp_path / "recipe.yaml").read_text())
    assert main([word for word in words if word != "--quiet"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "data.resize is pad, as always in recipes of version 1" in said
    assert "resize: pad leaves" in said


def test_a_mentor_that_learned_by_another_rule_is_noticed(tmp_path: Path, photos: Path, capsys: Any) -> None:
    assert main(run(photos, tmp_path / "first", "data.resize=stretch")) == 0
    student = next((tmp_path / "first").rglob("student.safetensors"))
    said = {}
    for rule in ("letterbox", "stretch"):
        mentor = f"mentors=[{{name: old, model: convnet8, checkpoint: {student}}}]"
        out = tmp_path / rule
        words = run(photos, out, f"data.resize={rule}", mentor, "method=kd", "check_mentors=off")
        assert main([word for word in words if word != "--quiet"]) == 0
        said[rule] = " ".join("".join(capsys.readouterr()).split())
        assert main([*words, "--dry-run"]) == 0
        said[f"{rule}, dry"] = " ".join("".join(capsys.readouterr()).split())
    for dry in ("", ", dry"):
        assert "mentor 'old': learned from pictures of data.resize: stretch" in said[f"letterbox{dry}"]
        assert "learned from pictures of" not in said[f"stretch{dry}"]
