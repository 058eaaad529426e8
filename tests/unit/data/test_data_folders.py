"""What a folder of images may look like: parts in any spelling, archives one folder deeper, links, names that are no
text, tools' own folders, the same picture twice."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classroomkd import data
from classroomkd.data.images import ImageSet
from classroomkd.data.sources.parts import part_of
from classroomkd.errors import UserError

PAIR = ("ant", "bee")


def fill(root: Path, names: tuple[str, ...] = PAIR, count: int = 10) -> Path:
    """``count`` pictures a class that occur nowhere else: their pixels follow from their path."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = root / name / f"{number}.png"
            draw = np.random.default_rng(list(os.fsencode(path)))
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=0)
    return root


def load(root: Path, **keys: Any) -> ImageSet:
    return data.load({"source": f"imagefolder:{root}", **keys})


def refused(root: Path, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN", "train_set", "trainset", "trainSet",
                                       "train data", "train2017", "01_train", "train_images", "trn")),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "eval", "VAL", "validation_set", "val2017",
                                     "devset", "Evaluation")),
        *((name, "test") for name in ("test", "Testing", "TEST", "test_set", "testset", "test-images", "tst")),
        *((name, None) for name in ("cat", "seg_train", "train_station", "trains", "contest", "train_test", "latest")),
    ],
)  # fmt: skip
def test_parts_by_name(name: str, part: str | None) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("Train", "Test"), ("TRAIN", "TEST"), ("train_set", "test_set")]
)
def test_parts_in_other_spellings(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train)
    fill(tmp_path / test, count=4)
    images = load(tmp_path)
    assert images.classes == PAIR
    assert (len(images.train), len(images.val), len(images.test)) == (18, 2, 8)


def test_three_parts_and_one_without_images(tmp_path: Path) -> None:
    for name in ("Training", "Dev", "Testing"):
        fill(tmp_path / name)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "licence.txt").write_text("free")
    images = load(tmp_path)
    assert (images.classes, len(images.train), len(images.val), len(images.test)) == (PAIR, 20, 20, 20)
    assert any("docs/ beside Training/ has no images and was left out" in note for note in images.notes)
    fill(tmp_path / "extra")
    assert "extra/ beside it, with images, which is no part that is known" in refused(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("seg_train", "seg_test"), ("Trainingsdaten", "Testdaten"), ("val", "test"), ("photos", "test"), ("a_train", "b")],
)
def test_what_looks_like_parts_and_is_not_understood(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        fill(tmp_path / name)
    if names == ("a_train", "b"):  # one name alone says too little for an error
        assert any("each holds the folders ant, bee" in note for note in load(tmp_path).notes)
        return
    message = refused(tmp_path)
    assert "look like parts of a data set" in message
    assert "data: {train: imagefolder:" in message


def test_parts_whose_folders_differ(tmp_path: Path) -> None:
    fill(tmp_path / "seg_train" / "seg_train")
    fill(tmp_path / "seg_test" / "seg_test")
    assert "look like parts of a data set" in refused(tmp_path)


def test_folds_are_pointed_out(tmp_path: Path) -> None:
    for name in ("fold1", "fold2"):
        fill(tmp_path / name)
    assert any("fold1, fold2 are the classes, and each holds the folders ant, bee" in n for n in load(tmp_path).notes)


def test_classes_that_are_called_like_parts(tmp_path: Path) -> None:
    fill(tmp_path, ("boat", "train"))
    assert load(tmp_path).classes == ("boat", "train")
    assert not load(tmp_path).notes
    images = load(fill(tmp_path / "two", ("test", "train")))
    assert images.classes == ("test", "train")
    assert any("test and train are taken as classes" in note for note in images.notes)


@pytest.mark.parametrize("inner", ["", "train"])
def test_an_archive_with_one_folder_more(tmp_path: Path, inner: str) -> None:
    fill(tmp_path / "dataset" / inner)
    (tmp_path / "__MACOSX" / "dataset").mkdir(parents=True)
    message = refused(tmp_path)
    assert f"Write imagefolder:{tmp_path}/dataset" in message
    assert load(tmp_path / "dataset").classes == PAIR


def test_a_part_with_one_folder_more(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "train")
    fill(tmp_path / "test" / "test")
    assert f"data: {{train: imagefolder:{tmp_path}/train/train, …}}" in refused(tmp_path)


def test_classes_meet_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "train", ("ant", "bee", "cat"))
    fill(tmp_path / "test", ("bee", "cat"))
    images = load(tmp_path)
    assert sorted(set(images.test.target.tolist())) == [1, 2]
    assert any("test/ has no images of ant" in note for note in images.notes)
    fill(tmp_path / "test", ("Ant",))
    assert "test/Ant is a class that the train folder lacks (did you mean 'ant'?)" in refused(tmp_path)


def test_accents_are_written_in_two_ways(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path / "train", (composed, "zoo"))
    fill(tmp_path / "test", (apart, "zoo"))
    if not (tmp_path / "test" / apart).samefile(tmp_path / "test" / apart) or sys.platform == "darwin":
        pytest.skip("this file system writes names in its own way")
    images = load(tmp_path)
    assert images.classes == (composed, "zoo")
    assert len(images.test) == 20
    fill(tmp_path / "train", (apart,))
    assert "two folders whose names are the same as text" in refused(tmp_path)


def test_images_beside_the_class_folders_are_said(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    for place in (tmp_path, tmp_path / "train"):
        shutil.copy(tmp_path / "test" / "ant" / "0.png", place / "loose.png")
    notes = load(tmp_path).notes
    assert any("2 images lie beside the class folders" in note and "loose.png" in note for note in notes)


# --- tools, links, names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle", ".git"])
@pytest.mark.parametrize("below", [".", "ant", "ant/deep"])
def test_what_tools_leave_is_passed_by(tmp_path: Path, name: str, below: str) -> None:
    fill(tmp_path)
    fill(tmp_path / "ant" / "deep", ("old",), 1)
    before = load(tmp_path)
    fill(tmp_path / below / name, ("a",))
    for file in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (tmp_path / below / file).write_text("x")
    after = load(tmp_path)
    assert (after.fingerprint, after.notes) == (before.fingerprint, before.notes)


def symlink(target: Path, link: Path) -> None:
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("no links here")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos")
    more = fill(tmp_path / "elsewhere", ("more",), 5) / "more"
    symlink(more, root / "ant" / "more")
    for number in range(3):
        symlink(root / "ant", root / "ant" / f"circle{number}")
    symlink(root / "ant" / "0.png", root / "bee" / "linked.png")
    images = load(root)
    assert len(images.train) + len(images.val) + len(images.test) == 26
    assert any("in another class" in note and "ant/0.png and bee/linked.png" in note for note in images.notes)


@pytest.mark.parametrize("memory_gib", [2.0, 0])
@pytest.mark.parametrize("size", [None, 32])
def test_links_that_lead_nowhere_are_named(tmp_path: Path, memory_gib: float, size: int | None) -> None:
    keys: dict[str, Any] = {"options": {"memory_gib": memory_gib}, "size": size}
    fill(tmp_path)
    symlink(tmp_path / "gone.png", tmp_path / "ant" / "5a.png")
    message = refused(tmp_path, **keys)
    assert "ant/5a.png: it is a link to" in message
    assert "gone.png, which is not there" in message
    images = load(tmp_path, unreadable="skip", **keys)
    assert any("1 unreadable image skipped: ant/5a.png" in note for note in images.notes)
    assert len(images.train) + len(images.val) + len(images.test) == 20


@pytest.mark.parametrize("place", ["ant/more", "cat"])
def test_linked_folders_that_are_gone_are_named(tmp_path: Path, place: str) -> None:
    fill(tmp_path)
    symlink(tmp_path / "unplugged", tmp_path / place)
    assert f"{place} (it is a link to" in refused(tmp_path)
    images = load(tmp_path, unreadable="skip")
    assert images.classes == PAIR
    assert any(f"{place} (it is a link to" in note for note in images.notes)


@pytest.mark.parametrize("place", ["ant", "ant/deep"])
def test_folders_without_permission_are_named(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    fill(tmp_path / "ant", ("deep",))
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == tmp_path / place:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # as root, nothing is forbidden
    assert f"{tmp_path / place} (Permission denied)" in refused(tmp_path)
    if place == "ant":
        return
    assert any("ant/deep (Permission denied)" in note for note in load(tmp_path, unreadable="skip").notes)


def test_the_folder_itself_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    fill(tmp_path)
    monkeypatch.setattr(os, "scandir", scandir)
    assert f"{tmp_path} cannot be read: Permission denied" in refused(tmp_path)


def bytes_folder(root: Path) -> Path:
    """Classes and files whose names are Latin-1, which is no UTF-8."""
    fill(root, ("ant", "bee"))
    place = os.fsencode(root)
    try:
        os.rename(place + b"/bee", place + b"/caf\xe9")
    except OSError:
        pytest.skip("names are text here")
    os.rename(place + b"/caf\xe9/1.png", place + b"/caf\xe9/\xe9t\xe9.png")
    return root


def test_names_that_are_no_text(tmp_path: Path) -> None:
    images = load(bytes_folder(tmp_path))
    assert images.classes == ("ant", "caf\ufffd")
    assert len(images.train) + len(images.val) + len(images.test) == 20
    with open(os.fsencode(tmp_path) + b"/caf\xe9/\xe8.png", "wb") as file:
        file.write(b"no picture")
    with open(os.fsencode(tmp_path) + b"/caf\xe9/\xe8.txt", "wb") as file:
        file.write(b"no picture")
    assert "caf\ufffd/\ufffd.png" in refused(tmp_path)
    notes = load(tmp_path, unreadable="skip").notes
    assert any("skipped: caf\ufffd/\ufffd.png" in note for note in notes)
    assert any("caf\ufffd/\ufffd.txt" in note for note in notes)
    for text in (*notes, *images.classes):
        text.encode()
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe8")
    assert "names are the same as text" in refused(tmp_path)


# --- the same picture twice -----------------------------------------------------------------------------------------


def test_copies_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    assert not any("same file" in note for note in load(tmp_path).notes)
    shutil.copy(tmp_path / "train" / "ant" / "0.png", tmp_path / "test" / "ant" / "x.png")
    shutil.copy(tmp_path / "train" / "ant" / "1.png", tmp_path / "train" / "bee" / "x.png")
    shutil.copy(tmp_path / "train" / "ant" / "2.png", tmp_path / "train" / "ant" / "x.png")
    shutil.copy(tmp_path / "train" / "ant" / "3.png", tmp_path / "train" / "ant" / "y.png")
    notes = [note for note in load(tmp_path).notes if "same file" in note]
    assert notes == [
        "1 image is the same file in another class: one of the two labels is wrong (e.g. train/ant/1.png and"
        " train/bee/x.png)",
        "1 image is the same file in another part: scores on it are too good (e.g. train/ant/0.png and test/ant/x.png)",
        "2 images are the same file twice: where the split parts them, scores are too good (e.g. train/ant/2.png and"
        " train/ant/x.png)",
    ]
