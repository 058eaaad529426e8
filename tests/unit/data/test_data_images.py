"""Source ``images:``: pictures without labels in a folder or a zip archive."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data
from classroomkd.data.file_pixels import FilePixels
from classroomkd.data.images import ImageSet
from classroomkd.data.sources.table import source_problem
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe

NESTED = ("1.png", "b/2.jpg", "a/deep/3.png", "a/4.png", "é #5.png")


def picture(path: Path, side: int = 32) -> Path:
    """A picture that occurs nowhere else: its pixels follow from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(os.fsencode(path.name)))
    Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def fill(root: Path, names: tuple[str, ...] = NESTED, side: int = 32) -> Path:
    for name in names:
        picture(root / name, side)
    return root


def pack(root: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root).as_posix())
        archive.writestr("__MACOSX/._1.png", b"no picture")
    return file


def load(place: Path, **keys: Any) -> ImageSet:
    return data.load({"source": f"images:{place}", "val_fraction": 0.2, **keys})


def refused(place: Path, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(place, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(images: ImageSet) -> dict[int, bytes]:
    """Pixels by id."""
    found = {}
    for part in (images.train, images.val, images.test):
        pixels, target, ids = part.batch(torch.arange(len(part)))
        assert set(target.tolist()) <= {UNLABELLED}
        found.update(zip(ids.tolist(), (one.numpy().tobytes() for one in pixels), strict=True))
    return found


def test_flat_and_nested_pictures_are_one_lot_in_sorted_order(tmp_path: Path) -> None:
    images = load(fill(tmp_path / "photos"))
    assert images.classes == ()
    assert images.name == "photos"
    assert images.unlabelled == len(images.train) == 3
    assert images.views == "crop_flip"
    found = everything(images)
    assert sorted(found) == [0, 1, 2, 3, 4]
    order = ["1.png", "a/4.png", "a/deep/3.png", "b/2.jpg", "é #5.png"]
    for place, name in enumerate(order):
        with Image.open(tmp_path / "photos" / name) as image:
            assert found[place] == np.asarray(image).transpose(2, 0, 1).tobytes()


def test_a_zip_archive_is_the_folder_that_it_holds(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", side=48)
    picture(tmp_path / "photos" / "large.png", 160)  # more than 64 KiB
    (folder / "readme.txt").write_text("free")
    one, two = load(folder, size=40), load(pack(folder, tmp_path / "photos.zip"), size=40)
    assert everything(one) == everything(two)
    assert one.fingerprint == two.fingerprint
    for images in (one, two):
        assert any("1 files are no images by their name" in note for note in images.notes)


def test_the_fingerprint_is_of_content_names_and_order(tmp_path: Path) -> None:
    marks = {load(fill(tmp_path / "one")).fingerprint}
    assert load(fill(tmp_path / "two")).fingerprint in marks
    (tmp_path / "two" / "1.png").rename(tmp_path / "two" / "0.png")
    marks.add(load(tmp_path / "two").fingerprint)
    picture(tmp_path / "one" / "6.png")
    marks.add(load(tmp_path / "one").fingerprint)
    assert len(marks) == 3


def test_pictures_are_decoded_on_demand_where_memory_is_short(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    short = load(folder, options={"memory_gib": 1e-6})
    assert isinstance(short.train.pixels, FilePixels)
    assert everything(short) == everything(load(folder))
    said = refused(pack(folder, tmp_path / "photos.zip"), options={"memory_gib": 1e-6})
    assert "5 pictures of 32x32 take 0.0 GiB, more than data.options.memory_gib" in said
    assert "unpack it and give the folder, images:DIR" in said


@pytest.mark.parametrize("packed", [False, True])
def test_what_cannot_be_decoded_is_named_or_skipped(tmp_path: Path, packed: bool) -> None:
    folder = fill(tmp_path / "photos")
    (folder / "a" / "broken.png").write_bytes((folder / "1.png").read_bytes()[:60])
    place = pack(folder, tmp_path / "photos.zip") if packed else folder
    assert "1 image cannot be decoded: " in (said := refused(place))
    assert "a/broken.png" in said
    skipped = load(place, unreadable="skip")
    assert sorted(everything(skipped)) == [0, 1, 3, 4, 5]  # an id is a place among all
    assert "1 unreadable image skipped: a/broken.png" in skipped.notes
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"no picture")
    assert "none of its 1 pictures can be decoded" in refused(tmp_path / "bad", unreadable="skip")


def test_a_damaged_or_encrypted_member_is_named(tmp_path: Path) -> None:
    file = pack(fill(tmp_path / "photos"), tmp_path / "photos.zip")
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("a/4.png").header_offset
    content[start + 60 : start + 90] = bytes(30)
    file.write_bytes(bytes(content))
    assert "a/4.png: " in refused(file)


def test_the_same_picture_twice_is_noted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    (folder / "z.png").write_bytes((folder / "1.png").read_bytes())
    assert any("1 image is the same file twice" in note for note in load(folder).notes)


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("none")
    said = refused(tmp_path / "docs")
    assert "there is no picture in it, at any depth; it holds readme.txt. Pictures are known by" in said
    assert "there is no picture in it" in refused(pack(tmp_path / "docs", tmp_path / "docs.zip"))
    assert "is no folder, and no zip archive that can be read" in refused(tmp_path / "docs" / "readme.txt")
    assert "there is no folder" in refused(tmp_path / "absent")


def test_names_of_classes_may_be_given(tmp_path: Path) -> None:
    images = load(fill(tmp_path), classes=["ant", "bee"])
    assert images.classes == ("ant", "bee")
    assert images.unlabelled == len(images.train)


def test_labels_may_stand_in_other_parts_alone(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    for name in ("cat", "ant"):
        fill(tmp_path / "known" / name, tuple(f"{name}{number}.png" for number in range(3)))
    known = f"imagefolder:{tmp_path / 'known'}"
    images = data.load({"train": f"images:{tmp_path / 'photos'}", "val": known, "test": known})
    assert images.classes == ("ant", "cat")
    assert images.unlabelled == len(images.train) == 5
    assert images.val.target.tolist() == images.test.target.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_recipe_finds_folders_and_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "photos", ("1.png",))
    pack(tmp_path / "photos", tmp_path / "photos.zip")
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "photos.zip"):
        recipe = make_recipe({"data": f"images:{name}", "student": "resnet8", "method": "none"})
        assert recipe.data.source == f"images:{tmp_path / name}"
    with pytest.raises(UserError, match="there is no folder 'fotos'"):
        make_recipe({"data": "images:fotos", "student": "resnet8", "method": "none"})


def test_a_folder_typed_without_a_source_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "photos", ("1.png", "2.png"))
    monkeypatch.chdir(tmp_path)
    problem = source_problem("photos", "classes", trust_code=False)
    assert problem is not None
    assert "(did you mean 'images:photos'?)" in problem
    with pytest.raises(UserError, match="pictures without labels are images:"):
        data.load("imagefolder:photos")
