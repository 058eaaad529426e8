"""Pictures of persons as files have them: EXIF orientations, and files that are cut, in memory and on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import dataset, mpii, one_mpii, read, scene
from PIL import Image, ImageOps

from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.people import Picture
from classroomkd.errors import UserError

ON_DISK = {"memory_gib": 0}


def stored(shown: Image.Image, orientation: int, ending: str) -> bytes:
    """A picture that a viewer shows as ``shown``."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    image = shown if undo is None else shown.transpose(Image.Transpose(undo))
    note = Image.Exif()
    note[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, {".png": "PNG", ".jpg": "JPEG"}[ending], exif=note)
    return file.getvalue()


@pytest.mark.parametrize("size", [(40, 30), (32, 32)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_viewers_show_them(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    """The one rule: the upright picture, unless the annotation's size is that of the stored one alone."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(stored(Image.fromarray(noise), orientation, ".png"))
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), noise)
        as_it_is = np.asarray(image)
    store = Files(tmp_path)
    assert store.size("a.png") == (height, width)
    store.turned.clear()
    assert store.complaint(Picture(1, "a.png", height, width)) is None
    assert np.array_equal(store.picture(Picture(1, "a.png", height, width)), noise)
    undecided = orientation > 1 and (orientation < 5 or width == height)
    assert store.turned == ({"a.png"} if undecided else set())
    if orientation > 4 and width != height:  # annotated as it is stored
        assert store.complaint(Picture(1, "a.png", width, height)) is None
        assert np.array_equal(store.picture(Picture(1, "a.png", width, height)), as_it_is)
    elif width != height:
        assert "its annotation says" in str(store.complaint(Picture(1, "a.png", width, height)))


@pytest.mark.parametrize("options", [{}, ON_DISK])
def test_orientations_that_sizes_do_not_decide_are_noted(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = read(dataset(tmp_path), options=options)
    assert not any("EXIF" in note for note in plain.notes)
    file = tmp_path / "images" / "000002.png"
    with Image.open(file) as image:
        turned = stored(image.copy(), 3, ".png")
    file.write_bytes(turned)
    images = read(f"coco-keypoints:{tmp_path}", options=options)
    (note,) = (note for note in images.notes if "EXIF" in note)
    assert (
        "people_train.json: 1 pictures have an EXIF orientation that their sizes do not confirm, e.g. 000002.png"
        in note
    )
    every = torch.arange(len(images.train))
    assert torch.equal(images.train.pixels.fetch(every), plain.train.pixels.fetch(every))


def test_mpii_s_pictures_are_turned_too(tmp_path: Path) -> None:
    source = mpii(tmp_path, [one_mpii(k) for k in range(8)])
    (tmp_path / "images" / "003.png").write_bytes(stored(Image.new("RGB", (300, 200)), 6, ".png"))
    images = read(source)
    assert images.people is not None
    assert {(p.height, p.width) for p in images.people.pictures} == {(200, 300)}
    assert any("1 pictures have an EXIF orientation" in note for note in images.notes)


def as_jpeg(folder: Path) -> str:
    """A set of JPEGs."""
    parts = scene(2, images=12), scene(2, images=3, seed=1, first=1001)
    source = dataset(folder, *parts)
    for part, name in zip(parts, ("train", "val"), strict=True):
        for entry in part["images"]:
            file = folder / "images" / entry["file_name"]
            with Image.open(file) as image:
                image.save(file.with_suffix(".jpg"), quality=90)
            entry["file_name"] = file.with_suffix(".jpg").name
        (folder / "annotations" / f"people_{name}.json").write_text(json.dumps(part))
    return source


@pytest.mark.parametrize("how", ["cut", "middle"])
def test_a_damaged_picture_is_skipped_on_disk_as_in_memory(tmp_path: Path, how: str) -> None:
    source = as_jpeg(tmp_path) if how == "cut" else dataset(tmp_path)
    file = tmp_path / "images" / ("000003.jpg" if how == "cut" else "000003.png")
    whole = file.read_bytes()
    file.write_bytes(whole[:3000] if how == "cut" else whole[:2000] + bytes(2000) + whole[4000:])
    with pytest.raises(UserError, match=rf"1 images cannot be used, e\.g\. {file.name}"):
        read(source)
    kept = [read(source, options=options, unreadable="skip") for options in ({}, ON_DISK)]
    assert len(kept[0].train) + len(kept[0].val) == 22
    assert torch.equal(kept[0].train.ids, kept[1].train.ids)
    assert any(f"people on unreadable images left out: {file.name}, {file.name}" in note for note in kept[1].notes)
    every = torch.arange(len(kept[1].train))
    assert torch.equal(kept[1].train.pixels.fetch(every), kept[0].train.pixels.fetch(every))
    if how == "cut":  # the file's end tells it before anything is trained
        with pytest.raises(UserError, match=r"1 images cannot be used, e\.g\. 000003\.jpg"):
            read(source, options=ON_DISK)


def test_what_follows_a_picture_is_no_damage(tmp_path: Path) -> None:
    source = as_jpeg(tmp_path)
    file = tmp_path / "images" / "000003.jpg"
    file.write_bytes(file.read_bytes() + b"more" * 5000)
    assert len(read(source, options=ON_DISK).test) == 6


def test_a_decoders_complaint_has_no_address() -> None:
    from classroomkd.data.decode import reason

    assert reason(OSError("cannot read <_io.BytesIO object at 0x7f01>")) == "cannot read"
    assert reason(OSError("<PIL.Image.Image object at 0x7f01>")) == "OSError"
