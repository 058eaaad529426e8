"""The verbs that use a finished student: sizes, paths, and files that are whole or not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data, models
from classroomkd.cli import predict
from classroomkd.cli.app import main
from classroomkd.data import puppets
from classroomkd.export import pictures
from classroomkd.models.checkpoints import read_checkpoint


@pytest.fixture(scope="session")
def student(finished: Path) -> str:
    return str(finished / "classroomkd" / "seed0")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(puppets.scenes(0, np.arange(3), image_size=32, hard=0.1).images.transpose(0, 2, 3, 1)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data source with the student's classes in images of 192 pixels."""
    root = tmp_path_factory.mktemp("large")
    for i, label in enumerate(puppets.CLASSES):
        (root / label).mkdir()
        for k in range(4):
            Image.new("RGB", (192, 192), (20 * i, 40 * k, 90)).save(root / label / f"{k}.png")
    return f"imagefolder:{root}"


def test_other_data_is_scored_at_the_students_size(
    student: str, large: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shapes = []
    real = data.load

    def load(*args: Any, **options: Any) -> Any:
        made = real(*args, **options)
        shapes.append(made.shape)
        return made

    monkeypatch.setattr(data, "load", load)
    assert main(["evaluate", student, "--data", large, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 40
    assert shapes == [(3, 32, 32)]


def test_other_shapes_are_refused(student: str, large: str, tmp_path: Path, capsys: Any) -> None:
    state, about = read_checkpoint(Path(student) / "student.safetensors", what="student")
    known = json.loads(about["preprocessing"]) | {"shape": [3, 32, 48]}
    models.save_checkpoint(state, tmp_path / "wide.safetensors", {**about, "preprocessing": json.dumps(known)})
    assert main(["evaluate", str(tmp_path / "wide.safetensors"), "--data", large]) == 2
    said = capsys.readouterr().err
    assert "3x192x192" in said
    assert "3x32x48" in said


def test_evaluate_where_one_stands(student: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(student)
    assert main(["evaluate", ".", "--json"]) == 0
    assert main(["evaluate", "student.safetensors", "--json"]) == 0
    capsys.readouterr()


def test_predict_leaves_the_old_file_when_it_cannot_finish(
    student: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out" / "said.csv"
    out.parent.mkdir()
    out.write_text("old")
    words = ["predict", student, str(photos), "--out", str(out), "--batch-size", "1"]
    if not torch.cuda.is_available():
        assert main([*words, "--device", "cuda"]) == 2
        assert out.read_text() == "old"
    real = pictures.decode

    def interrupted(file: Path, size: int | None, resize: str) -> Any:
        if file.name == "2.png":
            raise KeyboardInterrupt
        return real(file, size, resize)

    monkeypatch.setattr(pictures, "decode", interrupted)
    assert main(words) == 130
    assert out.read_text() == "old"
    assert list(out.parent.iterdir()) == [out]
    capsys.readouterr()
    monkeypatch.undo()
    assert main(words) == 0
    assert len(out.read_text().splitlines()) == 4


def test_predict_gives_no_more_classes_than_there_are(student: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "said.csv"
    assert main(["predict", student, str(photos), "--out", str(out), "--top", "99"]) == 0
    with out.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {1 + 2 * len(puppets.CLASSES)}


def test_predict_looks_at_every_kind_of_image_the_package_reads(photos: Path) -> None:
    from classroomkd.data.decode import ENDINGS

    for ending in ENDINGS:
        (photos / f"more{ending}").touch()
    assert len(predict._files(photos)) == 3 + len(ENDINGS)


def test_places_that_cannot_be_written(
    student: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for words, typed in (
        (["predict", student, str(photos), "--out", "nodir/x.csv"], "nodir/x.csv"),
        (["export", student, "file/x.safetensors"], "file/x.safetensors"),
        (["export", student, "/proc/x.safetensors"], "/proc/x.safetensors"),
    ):
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert f" {typed}:" in said
        assert len(said.splitlines()) == 1
        assert ".tmp" not in said
    assert not Path("nodir").exists()


@pytest.mark.parametrize("verb", ["evaluate", "predict", "export"])
def test_which_student(verb: str, student: str, photos: Path, tmp_path: Path, capsys: Any) -> None:
    more = {"predict": [str(photos)], "export": [str(tmp_path / "x.safetensors")]}.get(verb, [])
    assert main([verb, student, *more, "--which", "middle"]) == 2
    assert "--which middle: choose one of last, best, ema" in capsys.readouterr().err
    assert main([verb, student, *more, "--which", "best"]) == 0
    more += ["--force"] if verb == "export" else []
    assert main([verb, student, *more, "--which", "ema"]) == 2
    assert "student-ema.safetensors" in capsys.readouterr().err
