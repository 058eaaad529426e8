"""``predict --boxes`` with the files that people have: text ids, other categories, boxes without joints, EXIF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from classroomkd.cli.app import main

BOX = [4, 4, 50, 56]


def predicted(capsys: Any, simcc: Path, crowd: Path, content: Any, *words: str) -> tuple[list[dict[str, Any]], str]:
    (crowd / "boxes.json").write_text(json.dumps(content))
    boxes, out = str(crowd / "boxes.json"), str(crowd / "out.json")
    assert main(["predict", str(simcc), str(crowd / "images"), "--boxes", boxes, "--out", out, *words]) == 0
    return json.loads(Path(out).read_text()), capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "number"),
    [
        ({"image_id": "101"}, 101),
        ({"image_id": "000101"}, 101),
        ({"image_id": 101.0}, 101),
        ({"image_id": "000101.png"}, 101),
        ({"image_id": "images/000101.png"}, 101),
        ({"image_id": None, "file_name": "000101.png"}, 101),
        ({"image_id": "first", "file_name": "000101.png"}, 101),
        ({"file_name": ".\\000101.png"}, 101),
        ({"file_name": "D:\\set\\images\\000101.png"}, 101),
        ({"file_name": "/home/me/images/000101.png", "image_id": "7"}, 7),
        ({"image_id": 101, "category_id": "1"}, 101),
        ({"image_id": 101, "category_id": None}, 101),
        ({"image_id": 101, "category_id": 0}, 101),
    ],
)
def test_ids_and_names_of_lists(entry: dict[str, Any], number: int, simcc: Path, crowd: Path, capsys: Any) -> None:
    (found,), _ = predicted(capsys, simcc, crowd, [{**entry, "bbox": BOX, "score": 0.5}])
    assert (found["file_name"], found["image_id"], found["category_id"]) == ("000101.png", number, 1)


@pytest.mark.parametrize("entry", [{"image_id": None}, {"image_id": None, "file_name": None}, {}])
def test_a_box_of_no_image_is_one_sentence(entry: dict[str, Any], simcc: Path, crowd: Path, capsys: Any) -> None:
    (crowd / "boxes.json").write_text(json.dumps([{**entry, "bbox": BOX}]))
    assert main(["predict", str(simcc), str(crowd / "images"), "--boxes", str(crowd / "boxes.json")]) == 2
    said = capsys.readouterr().err
    assert "box 0 (from 0) has neither image_id nor file_name; it needs one of them" in said
    assert "Traceback" not in said


def people_of(crowd: Path) -> dict[str, Any]:
    people: dict[str, Any] = json.loads((crowd / "people.json").read_text())
    return people


@pytest.mark.parametrize("how", ["no keypoints", "no label", "one of them", "no joints at all", "crowd"])
def test_people_without_labels_are_looked_at(how: str, simcc: Path, crowd: Path, capsys: Any) -> None:
    content = people_of(crowd)
    for k, entry in enumerate(content["annotations"]):
        if how == "no label":
            entry["keypoints"] = [0] * 51
        elif how == "crowd":
            entry["iscrowd"] = 1
        elif how != "one of them" or k == 2:
            del entry["keypoints"]
    if how == "no joints at all":
        content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    found, said = predicted(capsys, simcc, crowd, content)
    assert len(found) == len(content["annotations"])
    assert "labelled joint" not in said


@pytest.mark.parametrize("number", [0, 3, 17])
def test_the_categorys_id_goes_through(number: int, simcc: Path, crowd: Path, capsys: Any) -> None:
    content = people_of(crowd)
    content["categories"][0]["id"] = number
    for entry in content["annotations"]:
        entry["category_id"] = number
    (crowd / "people.json").write_text(json.dumps(content))
    found, _ = predicted(capsys, simcc, crowd, content)
    assert {entry["category_id"] for entry in found} == {number}
    source = f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}"
    assert main(["evaluate", str(crowd / "out.json"), "--data", source]) == 0


def test_of_several_categories_the_students_joints_count(simcc: Path, crowd: Path, capsys: Any) -> None:
    content = people_of(crowd)
    content["categories"].append({"id": 5, "name": "dog", "keypoints": ["nose", "tail"]})
    dog = {"id": 9999, "category_id": 5, "image_id": 100, "bbox": BOX, "area": 9, "iscrowd": 0}
    content["annotations"].append({**dog, "keypoints": [1, 1, 2, 3, 3, 2]})
    found, said = predicted(capsys, simcc, crowd, content)
    assert len(found) == len(content["annotations"]) - 1
    assert "1 annotations of the other categories with joints left out: 9999" in said
    (crowd / "people.json").write_text(json.dumps(content))
    source = f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}"
    assert main(["evaluate", str(crowd / "out.json"), "--data", source]) == 0  # of the category that it is about


def test_results_in_lines_and_behind_a_mark_are_read(simcc: Path, crowd: Path, capsys: Any) -> None:
    source = f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}"
    found, _ = predicted(capsys, simcc, crowd, people_of(crowd))
    (crowd / "mark.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(found).encode())
    (crowd / "lines.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in found))
    scores = []
    for name in ("out.json", "mark.json", "lines.jsonl"):
        assert main(["evaluate", str(crowd / name), "--data", source, "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["metrics"])
    assert scores[0] == scores[1] == scores[2]
    (crowd / "cut.jsonl").write_text(json.dumps(found[0]) + "\n" + json.dumps(found[1])[:50])
    assert main(["evaluate", str(crowd / "cut.jsonl"), "--data", source]) == 2
    assert "is not whole JSON" in capsys.readouterr().err


def test_boxes_are_of_the_turned_picture_and_it_is_said(simcc: Path, crowd: Path, capsys: Any) -> None:
    straight, said = predicted(capsys, simcc, crowd, [{"file_name": "000101.png", "bbox": BOX}])
    assert "EXIF" not in said
    file = crowd / "images" / "000101.png"
    with Image.open(file) as image:
        turned, note = image.transpose(Image.Transpose.ROTATE_180), Image.Exif()
        note[0x0112] = 3
        turned.save(file, exif=note)
    again, said = predicted(capsys, simcc, crowd, [{"file_name": "000101.png", "bbox": BOX}])
    assert again == straight
    assert "note: 1 pictures were turned as their EXIF orientation says, e.g. 000101.png" in said
    content = people_of(crowd)
    content["images"] = [entry for entry in content["images"] if entry["id"] == 101]
    content["annotations"] = [{**content["annotations"][0], "image_id": 101, "bbox": BOX}]
    annotated, said = predicted(capsys, simcc, crowd, content)  # the same rule for either kind of boxes
    assert annotated[0]["keypoints"] == straight[0]["keypoints"]
    assert "EXIF" in said
