"""A student is scored on the images its run was made with, or it is said that they are others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import classroomkd as ck
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


def few(folder: Path, images: dict[str, int]) -> str:
    """A source of so many images of each class."""
    for label, count in images.items():
        (folder / label).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (40, 32), (90, 20 * k, 90)).save(folder / label / f"{k}.png")
    return f"imagefolder:{folder}"


@pytest.mark.parametrize("count", [1, 3])
def test_one_image_a_class_and_some_classes_only(count: int, run: Path, tmp_path: Path, capsys: Any) -> None:
    """What is only scored needs no split, and classes meet by name."""
    chosen = (puppets.CLASSES[7], puppets.CLASSES[2], puppets.CLASSES[4])[:count]
    source, student = few(tmp_path / "few", dict.fromkeys(chosen, 1)), run / "none" / "seed0" / "student.safetensors"
    assert main(["evaluate", str(student), "--data", source, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["part"], found["samples"]) == ("all", count)
    predicted = ck.load_student(student)([tmp_path / "few" / label / "0.png" for label in chosen]).names
    known = ck.load_student(student).classes
    right = {label: float(label == said) for label, said in zip(chosen, predicted, strict=True)}
    assert found["per_class"] == [right.get(label) for label in known]
    assert found["accuracy"] == pytest.approx(sum(right.values()) / count)
    assert main(["evaluate", str(student), "--data", source]) == 0
    assert capsys.readouterr().out.count("–") == len(known) - count


def test_a_part_that_is_there_needs_no_split(run: Path, tmp_path: Path, capsys: Any) -> None:
    few(tmp_path / "parts" / "train", dict.fromkeys(puppets.CLASSES, 1))
    source = few(tmp_path / "parts" / "test", {puppets.CLASSES[1]: 2})
    source = source.removesuffix("/test")
    student = str(run / "none" / "seed0")
    for part, samples in (("test", 2), ("all", len(puppets.CLASSES) + 2), ("train", len(puppets.CLASSES))):
        assert main(["evaluate", student, "--data", source, "--part", part, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == samples
    assert main(["evaluate", student, "--data", source, "--part", "val"]) == 2  # which is to be split off
    assert "no image is left for the validation part" in capsys.readouterr().err


def test_a_class_that_the_student_does_not_know(run: Path, tmp_path: Path, capsys: Any) -> None:
    label = puppets.CLASSES[0]
    source = few(tmp_path / "other", {label: 1, f"{label}s": 1, "zebra": 2})
    assert main(["evaluate", str(run / "none" / "seed0"), "--data", source]) == 2
    said = capsys.readouterr().err
    assert f"class '{label}s' (and 1 more) of the data 'other' is not among the student's 10" in said
    assert f"did you mean '{label}'?" in said


def test_a_run_whose_data_and_networks_were_handed_over(run: Path, photos: str, tmp_path: Path, capsys: Any) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("source: puppets", "source: python"))
    assert main(["evaluate", str(run / "none" / "seed0")]) == 2
    said = capsys.readouterr().err
    assert f"{run} was made with data that were handed over in Python; say which to score it on: --data " in said
    assert main(["evaluate", str(run / "none" / "seed0"), "--data", photos]) == 0
    capsys.readouterr()
    text = recipe.read_text()
    name = next(line for line in text.splitlines() if line.startswith("- model: "))
    recipe.write_text(text.replace(name, "- model: given:Big"))
    assert main(["run", str(recipe), "--out", str(tmp_path / "again")]) == 2
    said = capsys.readouterr().err
    assert "data.source = 'python': stands for data that were handed over in Python; say where they lie" in said
    assert "'given:Big': Big is a network that was handed over in Python, which a recipe cannot build; go on" in said


def test_pictures_that_cannot_be_read(run: Path, photos: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "photos" / puppets.CLASSES[0] / "0.png").write_bytes(b"no picture")
    student = str(run / "none" / "seed0")
    assert main(["evaluate", student, "--data", photos]) == 2
    said = capsys.readouterr().err
    assert "0.png: it is no image" in said
    assert said.rstrip().endswith("or add --unreadable skip")
    assert main(["evaluate", student, "--data", photos, "--unreadable", "skip"]) == 0


def test_images_without_a_label_are_not_scored(
    run: Path, photos: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    student, folder = str(run / "none" / "seed0" / "student.safetensors"), photos.partition(":")[2]
    assert main(["evaluate", student, "--data", f"images:{folder}", "--part", "all"]) == 2
    assert "no image of the part all of 'photos' has a label: there is nothing to score" in capsys.readouterr().err
    assert main(["evaluate", student, "--data", photos, "--part", "all", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    images = data.load(f"images:{folder}", scored="all")
    assert images.unlabelled == whole["samples"] == 80
    mine = tmp_path / "half_labelled.py"
    mine.write_text(
        "import numpy as np\n"
        "from classroomkd import data\n"
        "class Some:\n"
        f"    part = data.load({photos!r}, scored='all').train\n"
        "    classes = data.puppets.CLASSES\n"
        "    def __len__(self):\n"
        "        return 2 * len(self.part)\n"
        "    def __getitem__(self, i):\n"
        "        known, row = i < len(self.part), i % len(self.part)\n"
        "        names = sorted(self.classes)\n"
        "        label = self.classes.index(names[int(self.part.target[row])])\n"
        "        return self.part.pixels.fetch(self.part.rows[[row]])[0], label if known else None\n"
        "def some():\n"
        "    return Some()\n"
    )
    words = ["--data", "py:half_labelled:some", "--trust-code", "--part", "all", "--json"]
    assert main(["evaluate", student, *words]) == 0
    some = json.loads(capsys.readouterr().out)
    assert (some["samples"], some["accuracy"]) == (80, whole["accuracy"])
