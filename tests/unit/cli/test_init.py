"""``classroomkd init``: a recipe for somebody's folder that loads, explains itself and replaces nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from classroomkd.cli.app import main
from classroomkd.recipe import load_recipe
from classroomkd.recipe.starting import kinds
from classroomkd.tasks.start import training

sys.path.insert(0, str(Path(__file__).parents[1]))

import documents

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photographs(folder: Path, counts: dict[str, int], side: int = 70) -> None:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((side + i % 3, side + 20, 3), i, np.uint8)).save(folder / name / f"{i}.png")


def error(capsys: Capture, *words: str) -> str:
    assert main(["init", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [["photos"], ["own-images", "photos"]])
def test_a_recipe_for_photographs(desk: Path, capsys: Capture, words: list[str]) -> None:
    photographs(desk / "photos", {"cat": 40, "dog": 60})
    assert main(["init", *words]) == 0
    said = capsys.readouterr().out
    assert "100 images: cat 40, dog 60." in said
    assert "classroomkd run recipe.yaml --dry-run" in said
    text = (desk / "recipe.yaml").read_text()
    recipe = load_recipe("recipe.yaml")
    assert (recipe.name, recipe.data.source, recipe.data.size) == ("photos", f"imagefolder:{desk / 'photos'}", 64)
    assert [arm.label for arm in recipe.arms()] == ["none", "average", "classroomkd"]
    assert len(recipe.mentors) >= 2
    assert recipe.notes() == []
    train = recipe.train  # 100 less 20 for the test, less 8 for validation
    assert (train.epochs, train.batch_size, train.lr) == (167, 8, 0.0063)
    for key in ("size", "epochs", "batch_size", "lr"):  # the rule stands beside each number
        assert any(line.lstrip().startswith(f"{key}:") and "#" in line for line in text.splitlines()), key
    assert max(map(len, text.splitlines())) <= 120


def test_small_pictures_and_folders_by_part(desk: Path) -> None:
    for part, count in (("train", 30), ("val", 6), ("test", 6)):
        photographs(desk / "small" / part, {"a": count, "b": count}, side=36)
    assert main(["init", "small", "--out", "small.yaml"]) == 0
    recipe = load_recipe("small.yaml")
    assert recipe.data.size == 32
    assert "val_fraction" not in (desk / "small.yaml").read_text()
    assert recipe.train.batch_size == 8  # 60 images: none is split off


@pytest.mark.parametrize("words", [["coco"], ["pose", "coco"]])
def test_a_recipe_for_people(desk: Path, words: list[str]) -> None:
    documents.people(desk / "coco", {"train": 24, "val": 6})
    assert main(["init", *words]) == 0
    recipe = load_recipe("recipe.yaml")
    assert (recipe.task.name, recipe.data.source, recipe.data.size) == ("pose", "coco-keypoints:coco", (64, 48))
    assert (recipe.train.optimizer, recipe.train.lr) == ("adamw", 0.001)
    assert "30 people in 30 pictures: nose" in (desk / "recipe.yaml").read_text()


def test_it_is_looked_at_without_decoding_and_bad_files_are_named(desk: Path, capsys: Capture) -> None:
    photographs(desk / "photos", {"cat": 20, "dog": 20})
    (desk / "photos" / "cat" / "zero.jpg").write_bytes(b"")
    (desk / "photos" / "dog" / "notes.txt").write_text("")
    assert main(["init", "photos"]) == 0
    said = capsys.readouterr().out
    assert "cat/zero.jpg" in said
    assert "dog/notes.txt" in said
    assert load_recipe("recipe.yaml").data.unreadable == "skip"


def test_nothing_is_replaced(desk: Path, capsys: Capture) -> None:
    photographs(desk / "photos", {"cat": 5, "dog": 5})
    (desk / "recipe.yaml").write_text("mine")
    assert "--out FILE" in error(capsys, "photos")
    (desk / "link.yaml").symlink_to("elsewhere.yaml")
    assert "exists already" in error(capsys, "photos", "--out", "link.yaml")
    assert (desk / "recipe.yaml").read_text() == "mine"
    assert not (desk / "elsewhere.yaml").exists()


def test_mistakes_are_one_sentence(desk: Path, capsys: Capture) -> None:
    photographs(desk / "photos", {"cat": 5, "dog": 5})
    (desk / "empty").mkdir()
    (desk / "loose").mkdir()
    Image.new("RGB", (40, 40)).save(desk / "loose" / "1.png")
    (desk / "file.txt").write_text("")
    photographs(desk / "single", {"cat": 5})
    for words, part in (
        (["foto"], "classroomkd init own-images DIR"),
        (["own-imags", "photos"], "did you mean 'own-images'"),
        (["pose", "photos"], "annotation files"),
        (["own-images", "foto"], "there is no folder foto"),
        (["empty"], "own-images: "),
        (["loose"], "one folder per class"),
        (["own-images", "file.txt"], "is a file"),
        (["own-images", "single"], "nothing to learn"),
        (["photos", "--out", "recipe.txt"], "is a .yaml file"),
    ):
        said = error(capsys, *words)
        assert part in said, words
        assert "Traceback" not in said
    assert not list(desk.glob("*.yaml"))


def test_the_folder_above_is_no_folder_of_classes(desk: Path, capsys: Capture) -> None:
    photographs(desk / "photos", {"cat": 5, "dog": 5})
    said = error(capsys)
    assert f"imagefolder:{desk / 'photos'}" in said
    assert "classroomkd init KIND DIR" in said
    photographs(desk, {"others": 5})
    assert main(["init"]) == 0
    assert "'photos' holds folders of its own (cat, dog)" in capsys.readouterr().out


def test_awkward_names_are_written_as_yaml_reads_them(desk: Path) -> None:
    place = "my #1: photos, 'new'"
    photographs(desk / place, {"on": 6, "1.5": 6})
    assert main(["init", place]) == 0
    assert yaml.safe_load((desk / "recipe.yaml").read_text())["data"]["source"] == f"imagefolder:{place}"
    assert load_recipe("recipe.yaml").data.source == f"imagefolder:{desk / place}"


def test_a_recipe_for_another_folder_names_its_data_wholly(desk: Path) -> None:
    photographs(desk / "photos", {"cat": 5, "dog": 5})
    assert main(["init", "photos", "--out", "recipes/deep/mine.yaml"]) == 0
    assert yaml.safe_load((desk / "recipes/deep/mine.yaml").read_text())["data"]["source"].endswith(f"{desk}/photos")


def test_weights_that_lie_about_are_named(desk: Path) -> None:
    photographs(desk / "photos", {"cat": 5, "dog": 5})
    (desk / "big one.pth").touch()
    assert main(["init", "photos"]) == 0
    assert "  # - {name: big one, model: " in (desk / "recipe.yaml").read_text()


def test_a_recipe_at_hand_is_copied(desk: Path) -> None:
    assert main(["init", "smoke", "--out", "mine.yaml"]) == 0
    assert (desk / "mine.yaml").read_text() == (documents.ROOT / "recipes" / "smoke.yaml").read_text()


def test_every_task_of_ours_has_a_start() -> None:
    assert kinds() == {"own-images": "classification", "pose": "pose"}


@pytest.mark.parametrize("samples", [2, 3, 10, 100, 1_000, 100_000, 10_000_000])
def test_batches_and_epochs_for_any_number_of_samples(samples: int) -> None:
    lines = {line.key: line for line in training(samples, 1_500, "sgd", 0.05, at=64)}
    got = {key: line.value for key, line in lines.items()}
    assert 2 <= got["batch_size"] <= min(64, samples)
    assert 20 <= got["epochs"] <= 200
    assert got["lr"] == pytest.approx(0.05 * got["batch_size"] / 64, rel=0.05)
    made = got["epochs"] * max(1, samples // got["batch_size"])  # also where a bound cuts them
    assert lines["epochs"].why.startswith(f"{made:,} updates, ")
