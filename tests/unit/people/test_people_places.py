"""Where annotation files and their pictures are: layouts, names as other machines write them, ids, sizes."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import category, dataset, mpii, one_mpii, read, scene, write
from PIL import Image

from classroomkd.data.keypoints.placing import locate, reason
from classroomkd.errors import UserError

TRAIN, VAL = scene(2, images=14), scene(2, images=8, seed=1, first=1001)


def renamed(part: dict[str, Any], rule: Any) -> dict[str, Any]:
    return {**part, "images": [{**entry, "file_name": rule(entry["file_name"])} for entry in part["images"]]}


def laid_out(folder: Path, files: dict[str, Any]) -> Path:
    """Annotation files by name, and for each the folder where its pictures go."""
    for name, (part, images) in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(part))
        for entry in part["images"]:
            file = folder / images / PurePosixPath(entry["file_name"].replace("\\", "/")).name
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(entry["id"]).integers(0, 256, (120, 160, 3), np.uint8)
            Image.fromarray(noise).save(file)
    return folder


LAYOUTS: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "roboflow": {
        "train/_annotations.coco.json": (TRAIN, "train"),
        "valid/_annotations.coco.json": (VAL, "valid"),
        "test/_annotations.coco.json": (scene(1, images=3, first=501), "test"),
    },
    "images in parts": {"annotations/train.json": (TRAIN, "train/images"), "annotations/val.json": (VAL, "val/images")},
    "parts of images": {"train.json": (TRAIN, "images/train"), "val.json": (VAL, "images/val")},
    "all in parts": {"train/labels.json": (TRAIN, "train/images"), "val/labels.json": (VAL, "val/images")},
    "coco": {
        "annotations/person_keypoints_train2017.json": (TRAIN, "train2017"),
        "annotations/person_keypoints_val2017.json": (VAL, "val2017"),
    },
    "cvat": {"annotations/person_keypoints_default.json": (TRAIN, "images/default")},
    "deeper": {"keypoints_train.json": (TRAIN, "images/raw/2024"), "keypoints_val.json": (VAL, "images/raw/2025")},
    "same names": {
        "annotations/train.json": (TRAIN, "train/images"),
        "annotations/val.json": ({**VAL, "images": [
            {**entry, "file_name": f"{k + 1:06d}.png"} for k, entry in enumerate(VAL["images"])
        ]}, "val/images"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        *((name, "folder") for name in LAYOUTS),
        ("roboflow", "zip"),
        ("coco", "zip"),
        ("coco", "top"),
        ("all in parts", "zip"),
    ],
)
def test_layouts_are_found(tmp_path: Path, name: str, packed: str) -> None:
    files = LAYOUTS[name]
    top = laid_out(tmp_path / "set" / "people", files)
    source = {"folder": top, "top": tmp_path / "set", "zip": tmp_path / "people.zip"}[packed]
    if packed == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for file in sorted(top.rglob("*")):
                archive.write(file, f"people/{file.relative_to(top)}")
                archive.writestr(f"__MACOSX/people/{file.relative_to(top).with_name('._' + file.name)}", b"\0")
    images = read(f"coco-keypoints:{source}")
    assert images.people is not None
    assert len(images.test) == (3 if "test/_annotations.coco.json" in files else 16 if len(files) > 1 else 6)
    plain = read(f"coco-keypoints:{laid_out(tmp_path / 'plain', {'a.json': (TRAIN, 'images')})}")
    everybody = [dict(zip(part.ids.tolist(), part.rows.tolist(), strict=True)) for part in (plain.train, images.train)]
    same = sorted(everybody[0].keys() & everybody[1].keys())
    assert len(same) > 10
    pixels = [one.train.pixels.fetch(torch.tensor([rows[i] for i in same]))
              for one, rows in zip((plain, images), everybody, strict=True)]  # fmt: skip
    assert torch.equal(*pixels)  # the pictures of that part, not another's of the same names


def test_a_folder_that_nobody_would_guess_can_be_named(tmp_path: Path) -> None:
    top = laid_out(tmp_path / "set", {"train.json": (TRAIN, "shots"), "val.json": (VAL, "shots")})
    with pytest.raises(UserError, match=r"are in none of .*data\.options\.images names their folder"):
        read(f"coco-keypoints:{top}")
    assert len(read(f"coco-keypoints:{top}", options={"images": "shots"}).test) == 16
    shutil.move(top / "shots", tmp_path / "elsewhere")
    assert len(read(f"coco-keypoints:{top}", options={"images": str(tmp_path / "elsewhere")}).test) == 16


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: f"./{name}",
        lambda name: f"../train2017/{name}",
        lambda name: f"train\\{name}",
        lambda name: f"C:\\data\\people\\{name}",
        lambda name: f"/home/somebody/people/images/{name}",
        lambda name: f"images/{name}",
        lambda name: f"data//images/./{name}",
        lambda name: name.upper(),
        lambda name: f"file%20s/{name}",
    ],
)
def test_names_of_other_machines_are_found(tmp_path: Path, rule: Any) -> None:
    first, source = dataset(tmp_path / "a"), dataset(tmp_path / "b")
    for name, part in (("train", scene(2, images=12)), ("val", scene(2, images=3, seed=1, first=1001))):
        (tmp_path / "b" / "annotations" / f"people_{name}.json").write_text(json.dumps(renamed(part, rule)))
    images, plain = read(source), read(first)
    assert images.people is not None
    assert plain.people is not None
    names = [[Path(p.file).name for p in one.people.pictures] for one in (images, plain) if one.people is not None]
    assert names[0] == names[1]
    assert bool((images.train.pixels.fetch(images.train.rows) == plain.train.pixels.fetch(plain.train.rows)).all())


def test_two_entries_never_become_one_file() -> None:
    there = {"a.jpg", "sub/b.jpg", "C.JPG", "c.jpg"}
    assert locate(there, ["x/a.jpg", "y/a.jpg", "b.jpg", "c.jpg", "z\\C.jpg"]) == {
        "b.jpg": "sub/b.jpg",
        "c.jpg": "c.jpg",
    }
    assert locate(there, ["a.jpg", "old/a.jpg"]) == {"a.jpg": "a.jpg"}
    assert reason(there, "x/a.jpg") == " (another entry means the same file)"
    assert reason(there, "sub/b.png") == " (there is sub/b.jpg)"
    assert reason(there, "/abs/gone.jpg") == " (looked for gone.jpg)"
    assert reason(there, "") == " (it is no name of a file)"


def test_a_name_that_is_not_found_has_its_reason(tmp_path: Path) -> None:
    part = scene(2, images=12)
    source = dataset(tmp_path, part)
    part["images"][3]["file_name"] = "/data/set/000004.jpg"
    write(tmp_path, "people_train.json", json.dumps(part))
    with pytest.raises(
        UserError, match=r"1 images are not in .*, e\.g\. /data/set/000004\.jpg \(there is 000004\.png\); add"
    ):
        read(source)


def test_ids_are_read_as_text_and_as_decimals(tmp_path: Path) -> None:
    plain = read(dataset(tmp_path / "a"))
    part = scene(2, images=12)
    part["categories"][0]["id"] = "1"
    for k, entry in enumerate(part["images"]):
        entry["id"] = str(entry["id"]) if k % 2 else float(entry["id"])
    for k, entry in enumerate(part["annotations"]):
        entry["id"], entry["category_id"] = float(entry["id"]), "1" if k % 2 else 1.0
        entry["image_id"] = float(entry["image_id"]) if k % 3 else f" {entry['image_id']}"
    folder = tmp_path / "b"
    shutil.copytree(tmp_path / "a", folder)
    write(folder, "people_train.json", json.dumps(part))
    images = read(f"coco-keypoints:{folder}")
    assert images.people is not None
    assert plain.people is not None
    assert np.array_equal(images.people.persons.annotation, plain.people.persons.annotation)
    assert np.array_equal(images.people.image(images.train.ids), plain.people.image(plain.train.ids))


@pytest.mark.parametrize("gone", [("width",), ("height",), ("width", "height")])
@pytest.mark.parametrize("null", [True, False])
def test_sizes_that_are_missing_are_the_files(tmp_path: Path, gone: tuple[str, ...], null: bool) -> None:
    part = scene(2, images=12)
    source = dataset(tmp_path, part)
    for entry in part["images"]:
        for side in gone:
            entry.pop(side)
            if null:
                entry[side] = None
    write(tmp_path, "people_train.json", json.dumps(part))
    images = read(source)
    assert images.people is not None
    assert {(p.height, p.width) for p in images.people.pictures} == {(120, 160)}
    (tmp_path / "images" / "000003.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 images cannot be used, e\.g\. 000003\.png"):
        read(source)
    assert len(read(source, unreadable="skip").test) == 6


def test_the_category_that_counts_can_be_chosen(tmp_path: Path) -> None:
    def two(first: int, part: dict[str, Any]) -> dict[str, Any]:
        for k, entry in enumerate(part["annotations"]):
            entry["category_id"] = (7, 0)[k % 2]
        return {**part, "categories": [category(id=0, name="dog"), category(id=7, name="person")]}

    source = dataset(tmp_path, two(1, scene(2, images=14)), two(1, scene(2, images=8, seed=1, first=1001)))
    with pytest.raises(UserError, match=r"2 of them \(dog \(id 0\), person \(id 7\)\); data\.options\.category names"):
        read(source)
    for wanted, number in (("person", 7), (7, 7), ("7", 7), ("dog", 0), (0, 0)):
        images = read(source, options={"category": wanted})
        assert images.people is not None
        assert len(images.test) == 8
        assert images.people.category == number
        assert any("14 annotations of the other categories with joints left out" in note for note in images.notes)
    with pytest.raises(UserError, match=r"data\.options\.category: 'persn' is no category .*did you mean 'person'"):
        read(source, options={"category": "persn"})


@pytest.mark.parametrize("number", [0, 2, 15])
def test_the_persons_category_keeps_its_id(tmp_path: Path, number: int) -> None:
    parts = [scene(2, images=14), scene(2, images=8, seed=1, first=1001)]
    for part in parts:
        part["categories"] = [category(id=number)]
        part["annotations"] = [{**entry, "category_id": number} for entry in part["annotations"]]
    source = dataset(tmp_path, *parts)
    for given in ({"source": source}, {"source": None, "train": source, "test": source}):
        images = read(**given)
        assert images.people is not None
        assert images.people.category == number
        assert not any("left out" in note for note in images.notes)


def test_negative_annotation_ids_are_ground_truth(tmp_path: Path) -> None:
    plain = read(dataset(tmp_path / "a"))
    for ids in (lambda k: -k - 1, lambda k: -5 if k == 1 else k):
        part = scene(2, images=3, seed=1, first=1001)
        for k, entry in enumerate(part["annotations"]):
            entry["id"] = ids(k)
        images = read(dataset(tmp_path / f"b{ids(0)}", val=part))
        assert images.people is not None
        assert plain.people is not None
        assert images.people.boxes == "gt"
        assert not images.people.persons.detector.any()
        truth, other = (one.people.truth(one.test.ids, bare=True) for one in (images, plain) if one.people is not None)
        assert np.array_equal(truth.joints, other.joints)


MPII_LAYOUTS = {
    "train and val": ("annot", "train.json", "val.json", "gt_valid.mat"),
    "validation": ("annot", "train.json", "validation.json", "gt_valid.mat"),
    "mmpose": ("annotations", "mpii_train.json", "mpii_val.json", "mpii_gt_val.mat"),
    "hrnet": ("annot", "train.json", "valid.json", "gt_valid.mat"),
}


@pytest.mark.parametrize(("folder", "train", "val", "mat"), MPII_LAYOUTS.values(), ids=MPII_LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_mpii_is_found_as_others_lay_it_out(
    tmp_path: Path, folder: str, train: str, val: str, mat: str, packed: bool
) -> None:
    io = pytest.importorskip("scipy.io")
    top = tmp_path / "mpii"
    mpii(top, [one_mpii(k) for k in range(10)], train)
    mpii(top, [one_mpii(k) for k in range(20, 24)], val)
    jointless = [{"image": "000.png", "center": [9, 9], "scale": 1.0, "joints": [], "joints_vis": []}]
    prefix = train.removesuffix("train.json")
    for name, content in ((f"{prefix}test.json", jointless), (f"{prefix}trainval.json", jointless)):
        (top / "annot" / name).write_text(json.dumps(content))
    boxes = np.zeros((2, 2, 4))
    boxes[1, 0], boxes[1, 1] = 30, 40
    io.savemat(top / "annot" / mat, {"headboxes_src": boxes})
    if folder != "annot":
        (top / "annot").rename(top / folder)
    source: Path = top
    if packed:
        source = tmp_path / "mpii.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in sorted(top.rglob("*")):
                archive.write(file, f"mpii/{file.relative_to(top)}")
    images = read(f"mpii:{source}")
    assert images.people is not None
    assert len(images.test) == 4
    assert images.people.of(images.test.ids).head.tolist() == [50.0] * 4
    assert not any(f"{val}: no head boxes" in note for note in images.notes)
    if "valid.json" not in (val,) or packed:
        assert any("test.json has no annotations, so nothing can be scored on it" in note for note in images.notes)
        assert any(f"{val} is used as the test part" in note for note in images.notes)


def test_a_mat_file_of_other_people_is_said(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    source = mpii(tmp_path, [one_mpii(k) for k in range(10)])
    mpii(tmp_path, [one_mpii(k) for k in range(20, 24)], "my_val.json")
    io.savemat(tmp_path / "annot" / "gt_valid.mat", {"headboxes_src": np.ones((2, 2, 7))})
    images = read(source)
    assert any("my_val.json: annot/gt_valid.mat is about 7 people, this file about 4" in note for note in images.notes)
    assert any("my_val.json: no head boxes" in note for note in images.notes)


def test_a_test_file_without_annotations_is_left_out(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    (tmp_path / "annotations" / "image_info_test.json").write_text(json.dumps({"images": [], "categories": []}))
    images = read(source)
    assert len(images.test) == 6
    assert any("image_info_test.json has no annotations" in note for note in images.notes)
