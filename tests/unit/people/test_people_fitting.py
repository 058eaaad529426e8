"""Labels that do not fit their boxes or pictures are said, with what they look like; those that do are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people_pieces import dataset, mpii, one_mpii, read, scene

from classroomkd.data import load
from classroomkd.data.keypoints.fitting import UNFIT
from classroomkd.errors import UserError

Change = Any


def swapped(entry: dict[str, Any]) -> None:
    points = np.reshape(entry["keypoints"], (17, 3))
    entry["keypoints"] = points[:, [1, 0, 2]].reshape(-1).tolist()


def shares(entry: dict[str, Any]) -> None:
    points = np.reshape(entry["keypoints"], (17, 3)) / [160, 120, 1]
    entry["keypoints"] = points.reshape(-1).tolist()


def corners(entry: dict[str, Any]) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def other_boxes(entry: dict[str, Any]) -> None:
    entry["bbox"] = [float(110 + entry["id"] % 7), 60.0, 80.0, 80.0]


def notes_of(folder: Path, change: Change) -> list[str]:
    parts = scene(2, images=14), scene(2, images=8, seed=1, first=1001)
    for part in parts:
        for entry in part["annotations"]:
            x, y, width, height = entry["bbox"]
            low, high = max(x, 0.0), max(y, 0.0)
            entry["bbox"] = [low, high, min(x + width, 159.0) - low, min(y + height, 119.0) - high]
            change(entry)
    return [note for note in read(dataset(folder, *parts)).notes if UNFIT in note]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, ["of the labelled joints lie outside of their person's crop", "x and y of the joints look swapped"]),
        (shares, ["of the labelled joints lie outside", "joints look like shares of the picture (0..1)"]),
        (corners, ["boxes look like corners (x1, y1, x2, y2)"]),
        (other_boxes, ["of the boxes lie outside of their picture", "of the labelled joints lie outside"]),
    ],
)
def test_labels_that_do_not_fit_are_said(tmp_path: Path, change: Change, words: list[str]) -> None:
    first, second = notes_of(tmp_path, change)
    assert first.startswith("people_train.json: ")
    assert second.startswith("people_val.json: ")
    for word in words:
        assert word in first, first


def test_labels_that_fit_are_not(tmp_path: Path) -> None:
    assert notes_of(tmp_path / "a", lambda entry: None) == []
    plain = load({"source": "puppets", "options": {"train": 40, "test": 20}}, task="pose")
    assert not any(UNFIT in note for note in plain.notes)


def test_boxes_in_shares_of_the_picture_are_said_where_nobody_is_left(tmp_path: Path) -> None:
    parts = scene(2, images=14), scene(2, images=8, seed=1, first=1001)
    for part in parts:
        for entry in part["annotations"]:
            entry["bbox"] = [value / side for value, side in zip(entry["bbox"], (160, 120) * 2, strict=True)]
    with pytest.raises(UserError, match=r"no person is left .*boxes look like shares of the picture"):
        read(dataset(tmp_path, *parts))


def test_mpii_s_scale_in_pixels_is_said(tmp_path: Path) -> None:
    people = [one_mpii(k) for k in range(10)]
    assert not any(UNFIT in note for note in read(mpii(tmp_path / "a", people)).notes)
    for person in people:
        person["scale"] *= 200
    (note,) = (note for note in read(mpii(tmp_path / "b", people)).notes if UNFIT in note)
    assert "of the boxes lie outside of their picture" in note
    assert "MPII's scale is height / 200" in note


@pytest.mark.data
@pytest.mark.parametrize(
    "source", ["coco-keypoints:pose_coco_mini.zip", "coco-keypoints:pose_lspet2400.zip", "mpii:pose_mpii_sample.zip"]
)
def test_real_labels_fit(data_root: Path, source: str) -> None:
    kind, _, file = source.partition(":")
    images = load({"source": f"{kind}:{data_root / file}", "size": [16, 12], "limit": 100}, task="pose")
    assert not [note for note in images.notes if UNFIT in note or "flip_pairs" in note or "EXIF" in note]


def test_a_size_that_is_written_width_first_is_said(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    (note,) = (note for note in read(source, size=[24, 32]).notes if note.startswith("data.size: "))
    assert "[24, 32] is height 24 and width 32, wider than high" in note
    assert "data.size: [32, 24] fits them better" in note
    for size in ([32, 24], [32, 32], 32):
        assert not any(note.startswith("data.size: ") for note in read(source, size=size).notes)


@pytest.mark.parametrize(("given", "meant"), [("coco", "coco-keypoints"), ("lsp", "coco-keypoints"), ("mpi", "mpii")])
def test_the_source_that_was_meant_is_named(tmp_path: Path, given: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{meant}"):
        read(f"{given}:{tmp_path / 'nowhere'}")
