"""A student called from Python says what ``classroomkd predict`` says, whatever the pictures come as."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.data import puppets
from classroomkd.errors import UserError
from classroomkd.export.find import find_student


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Pictures of several sizes and kinds, one lying on its side by its EXIF note."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images = puppets.scenes(0, np.arange(4), image_size=48, hard=0.1).images.transpose(0, 2, 3, 1)
    pictures = [Image.fromarray(image) for image in images]
    pictures[0].save(folder / "0.png")
    pictures[1].crop((0, 0, 48, 20)).save(folder / "1.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures[2].resize((40, 64)).save(folder / "2.png", exif=turned)
    pictures[3].convert("L").resize((20, 16)).save(folder / "3.png")
    pictures[0].convert("RGBA").save(folder / "4.png")
    return sorted(folder.iterdir())


@pytest.fixture
def file(finished: Path) -> Path:
    return finished / "classroomkd" / "seed1" / "student.safetensors"


def told(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    assert main([*map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_same_as_predict(file: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    student = ck.load_student(file)
    rows = told(capsys, "predict", file, photos[0].parent, "--top", 10)
    names, probabilities = student(photos)
    assert probabilities.shape == (5, 10)
    assert probabilities.dtype == torch.float32
    assert list(names) == [row["classes"][0] for row in rows]
    for row, mine in zip(rows, probabilities, strict=True):
        order = [student.classes.index(name) for name in row["classes"]]
        assert mine[order].tolist() == pytest.approx(row["probabilities"], abs=1e-6)
    opened = [Image.open(path) for path in photos]
    for given in (opened, [np.asarray(ck.export.pictures.opened(path)) for path in photos], tuple(map(str, photos))):
        assert torch.allclose(student(given).probabilities, probabilities, atol=1e-6)
    for path, image, mine in zip(photos, opened, probabilities, strict=True):
        for one in (path, str(path), image):
            single = student.predict(one)
            assert single.probabilities.shape == (1, 10)
            assert torch.allclose(single.probabilities[0], mine, atol=1e-6)


def test_it_is_printed_in_a_line(file: Path) -> None:
    said = repr(ck.load_student(file))
    assert re.fullmatch(r"Student\(convnet\d+, classification of 10: stand, .*, …; 3x32x32, resize: \w+\)", said), said


def test_batches_of_pixels(file: Path) -> None:
    student = ck.load_student(file)
    images = puppets.scenes(3, np.arange(5), image_size=48, hard=0.1).images
    assert images.shape == (5, 3, 48, 48)
    wanted = student([Image.fromarray(image.transpose(1, 2, 0)) for image in images])
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    for batch in (images, torch.from_numpy(images), last, torch.from_numpy(last), list(images), [images[:2], last[2:]]):
        found = student(batch)
        assert found.names == wanted.names
        assert torch.allclose(found.probabilities, wanted.probabilities, atol=1e-6)
    own = student(torch.zeros(2, *student.shape, dtype=torch.uint8))
    assert own.probabilities.shape == (2, 10)
    assert student(np.zeros((40, 32), np.uint8)).names == own.names[:1]  # grey
    assert not own.probabilities.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no.png", "no.png: "),
        (torch.zeros(3, 32, 32), "pixels are float32; give uint8, 0 to 255 and not normalised"),
        (np.zeros((4, 32, 32), np.uint8), r"pixels have shape \(4, 32, 32\); give a path"),
        (np.zeros((0, 3, 32, 32), np.uint8), "there is no image"),
        (np.zeros((1, 3, 0, 32), np.uint8), r"pixels have shape \(1, 3, 0, 32\)"),
        ([], "there is no image"),
        (None, "a NoneType is no picture; give a path"),
        ([Image.new("RGB", (9, 9)), Image.new("F", (9, 9))], r"image 1 \(from 0\)"),
    ],
)
def test_what_is_no_picture(given: Any, message: str, file: Path) -> None:
    with pytest.raises(UserError, match=message):
        ck.load_student(file)(given)


def test_arrays_count_by_the_range_of_their_type(file: Path) -> None:
    student = ck.load_student(file)
    images = puppets.scenes(3, np.arange(2), image_size=48, hard=0.1).images
    wide = images.astype(np.uint16) * 256
    for given in (wide, torch.from_numpy(wide), wide.astype(">u2"), wide + 255):
        assert torch.equal(student(given).probabilities, student(images).probabilities)
    assert torch.equal(student(images > 99).probabilities, student((images > 99) * np.uint8(255)).probabilities)


def test_boxes_are_for_persons(file: Path) -> None:
    with pytest.raises(UserError, match="takes images alone; boxes are for persons"):
        ck.load_student(file)(Image.new("RGB", (9, 9)), [[0, 0, 9, 9]])


# --- a folder of several students -------------------------------------------------------------------------------------


def scored(run: Path, tmp_path: Path, scores: dict[tuple[str, int], float | None], **more: Any) -> Path:
    """A copy of a run whose students have these scores on validation."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    summary = json.loads((run / "summary.json").read_text()) | more
    for entry in summary["entries"]:
        entry["val_last"] = entry["val_best"] = scores[entry["method"], entry["seed"]]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "run"


SCORES = {("none", 0): 0.5, ("none", 1): 0.9, ("classroomkd", 0): 0.7, ("classroomkd", 1): 0.2}


def test_the_best_on_validation_is_taken_and_said(
    finished: Path, tmp_path: Path, photos: list[Path], caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    run = scored(finished, tmp_path, SCORES)
    said: list[str] = []
    assert find_student(run, say=said.append) == run / "none" / "seed1" / "student.safetensors"
    assert "holds 4 students" in said[0]
    assert f"this is {run / 'none' / 'seed1'}, the best on validation (accuracy 90.0%)" in said[0]
    assert find_student(run / "classroomkd", "best", said.append).parent == run / "classroomkd" / "seed0"
    with caplog.at_level(logging.WARNING, "classroomkd"):
        assert ck.load_student(run).metadata["method"] == "none"
    assert "the best on validation" in caplog.text
    for verb, *words in (("predict", photos[0]), ("evaluate",), ("export", tmp_path / "s.safetensors")):
        assert main([verb, str(run), *map(str, words), "--json"]) == 0
        out, err = capsys.readouterr()
        assert "note: " in err
        assert "holds 4 students" in err
        assert "holds 4" not in out
    assert ck.load_student(run / "classroomkd" / "seed1").metadata["seed"] == "1"


def test_of_errors_the_smallest_is_best(finished: Path, tmp_path: Path) -> None:
    run = scored(
        finished, tmp_path, SCORES, higher_is_better=False, metric="error", val_metric="error", metric_unit="px"
    )
    said: list[str] = []
    assert find_student(run, say=said.append).parent == run / "classroomkd" / "seed1"
    assert "(error 0.2 px)" in said[0]


def test_without_scores_one_is_to_be_named(finished: Path, tmp_path: Path) -> None:
    run = scored(finished, tmp_path, dict.fromkeys(SCORES))
    with pytest.raises(UserError, match=r"holds 4 students .*; name one of them"):
        find_student(run)
    (run / "summary.json").write_text('{"arms": [{"label": 3}], "entries": [{}]}')
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        find_student(run)
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match="name one of them"):
        find_student(run)
