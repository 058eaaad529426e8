"""A pose student called from Python: the joints of persons in a picture, as ``classroomkd predict`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.errors import UserError


def predicted(student: Path, crowd: Path, *words: object) -> list[dict[str, Any]]:
    out = crowd / "out.json"
    assert main(["predict", str(student), str(crowd / "images"), "--out", str(out), *map(str, words)]) == 0
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize(("kind", "flip"), [("simcc", False), ("heatmap", True)])
def test_the_same_as_predict(kind: str, flip: bool, crowd: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    student, options = ck.load_student(path), {"flip_test": True} if flip else {}
    boxes: dict[int, list[list[float]]] = {}
    for person in json.loads((crowd / "people.json").read_text())["annotations"]:
        boxes.setdefault(person["image_id"], []).append(person["bbox"])
    found = predicted(path, crowd, "--boxes", crowd / "people.json", *["--flip-test"] * flip)
    near = []
    for image, own in boxes.items():
        joints = student(crowd / "images" / f"{image:06d}.png", own, **options)
        assert joints.shape == (len(own), 17, 3)
        theirs = np.array([entry["keypoints"] for entry in found if entry["image_id"] == image]).reshape(-1, 17, 3)
        near.append((np.abs(joints.numpy() - theirs) < 1e-3).all(-1))
    # In a batch of another size a peak that is as high as another may be the other; with random weights some are.
    assert np.concatenate(near).mean() > 0.97


def test_a_whole_picture_is_one_person(simcc: Path, crowd: Path) -> None:
    student = ck.load_student(simcc)
    for entry in predicted(simcc, crowd)[:4]:
        path = crowd / "images" / entry["file_name"]
        with Image.open(path) as image:
            for given in (
                path,
                str(path),
                image,
                np.asarray(image),
                torch.from_numpy(np.array(image)).permute(2, 0, 1),
            ):
                joints = student.predict(given)
                assert (np.abs(joints.numpy().ravel() - entry["keypoints"]) < 1e-3).mean() > 0.9


def test_every_box_has_its_row(simcc: Path) -> None:
    student, picture = ck.load_student(simcc), Image.linear_gradient("L").resize((90, 70))
    one = student(picture, [10, 5, 30, 40])
    three = student(picture, np.array([[10, 5, 30, 40], [50, 20, 30, 40], [10, 5, 30, 40]]))
    assert torch.allclose(three[::2], one.expand(2, -1, -1), atol=1e-3)
    assert not torch.allclose(three[1], one[0], atol=1)
    assert student(picture, boxes=[]).shape == (0, 17, 3)
    assert student(picture, torch.zeros(0, 4)).shape == (0, 17, 3)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (
            [[0, 0, 9, 9], [95, 0, 20, 20]],
            r"box 1 \(from 0\) is 95, 0, 20, 20: less than 8 pixels of it are in the picture",
        ),
        ([[0, 0, float("nan"), 9]], r"box 0 \(from 0\)"),
        ([[0, 0, 3, 3]], r"box 0 \(from 0\)"),
        ([[0, 0, 3]], r"boxes have shape \(1, 3\); give \(P, 4\)"),
        (["a"], "boxes are no numbers"),
    ],
)
def test_boxes_that_hold_nobody(boxes: Any, message: str, simcc: Path) -> None:
    with pytest.raises(UserError, match=message):
        ck.load_student(simcc)(Image.new("RGB", (90, 70)), boxes)


def test_one_picture_at_a_time(simcc: Path, tmp_path: Path) -> None:
    student = ck.load_student(simcc)
    with pytest.raises(UserError, match="give one picture at a time with the boxes in it, not 2"):
        student([Image.new("RGB", (90, 70))] * 2)
    with pytest.raises(UserError, match="No such file"):
        student(tmp_path / "none.png")


def test_one_person_alone_is_scored(simcc: Path, crowd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is only scored needs no split."""
    people = json.loads((crowd / "people.json").read_text())
    people["annotations"] = people["annotations"][:1]
    people["images"] = people["images"][:1]
    (crowd / "one.json").write_text(json.dumps(people))
    source = f"coco-keypoints:{crowd / 'one.json'}@{crowd / 'images'}"
    assert main(["evaluate", str(simcc), "--data", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1
    assert main(["evaluate", str(simcc), "--data", source, "--part", "test"]) == 2
    assert "no person is left" in capsys.readouterr().err
