"""``classroomkd predict`` and ``evaluate`` of pose students: the same crops, the same scores, and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classroomkd._compat import installed
from classroomkd.cli.app import main
from classroomkd.data.keypoints.people import People
from classroomkd.data.skeleton import COCO
from classroomkd.tasks.pose.results import read_results

Saved = Callable[..., Path]
official = pytest.mark.skipif(not installed("pycocotools"), reason="needs pycocotools")


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def relabelled(crowd: Path, found: list[dict[str, Any]], noise: float = 1.5) -> Path:
    """The folder's annotations with the student's own answers, some pixels off, as the truth: scores worth comparing.

    Two fifths of the joints lose their label (too few pairs are left to doubt the skeleton), a tenth is hidden.
    """
    people = json.loads((crowd / "people.json").read_text())
    rng = np.random.default_rng(0)
    for person, answer in zip(people["annotations"], found, strict=True):
        assert person["image_id"] == answer["image_id"]
        joints = np.array(answer["keypoints"]).reshape(-1, 3)
        joints[:, :2] += rng.normal(0, noise, (len(joints), 2))
        joints[:, 2] = rng.choice([0, 1, 2], len(joints), p=[0.4, 0.1, 0.5])
        joints[joints[:, 2] == 0] = 0
        person["keypoints"], person["area"] = joints.ravel().tolist(), 33.0**2
        person["num_keypoints"] = int((joints[:, 2] > 0).sum())
    path = crowd / "relabelled.json"
    path.write_text(json.dumps(people))
    return path


def predicted(capsys: Any, student: Path, crowd: Path, *words: object) -> list[dict[str, Any]]:
    out = crowd / "results.json"
    told(capsys, "predict", student, crowd / "images", "--out", out, *words)
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


# --- the same as evaluation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"image_id": 4711}, [], "has results for 1 image(s) that are not among the"),
        ({"category_id": 2}, [], "result 3 (from 0) has category_id 2"),
        ({"keypoints": [1.0] * 48}, [], "the skeleton has 17 joints, which makes 51"),
        ({"score": float("nan")}, [], "result 3 (from 0) has score with something that is not a finite number"),
        ({}, ["--part", "val"], "has no such file; there is all (people.json)"),
        ({}, None, "say which annotations they are scored against: --data"),
    ],
)
def test_results_that_do_not_fit_their_data(
    change: dict[str, Any], words: list[str] | None, message: str, simcc: Path, crowd: Path, capsys: Any
) -> None:
    found = predicted(capsys, simcc, crowd, "--boxes", crowd / "people.json")
    file = crowd / "other.json"
    found[3] |= change
    file.write_text(json.dumps(found))
    data = [] if words is None else ["--data", f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}", *words]
    assert main(["evaluate", str(file), *data]) == 2
    assert message in capsys.readouterr().err
    file.write_text(file.read_text()[:-20])
    if words == []:
        assert main(["evaluate", str(file), *data]) == 2
        assert "is not whole JSON" in capsys.readouterr().err


def test_results_are_scored_against_the_test_annotations_of_a_folder(tmp_path: Path, capsys: Any) -> None:
    """Of any category, with every listed picture looked at, as pycocotools has it; images are not needed."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    joints = np.random.default_rng(0).uniform(10, 90, (6, 17, 2))
    for part, first in (("train", 0), ("val", 3)):
        people = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 99, "height": 99} for i in range(first, first + 4)],
            "categories": [{"id": 7, "name": "dancer", "keypoints": list(COCO.joints)}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 7, "bbox": [5, 5, 90, 90], "area": 4000,
                 "keypoints": np.c_[joints[i], np.full(17, 2)].ravel().tolist()} for i in range(first, first + 3)
            ],
        }  # fmt: skip
        (tmp_path / "annotations" / f"people_{part}.json").write_text(json.dumps(people))
        (tmp_path / "images" / f"{first}.png").touch()
    answers = [
        {"image_id": i, "category_id": 7, "keypoints": np.c_[joints[i], np.ones(17)].ravel().tolist(), "score": 0.9}
        for i in (3, 4, 5)
    ]
    alarm = {**answers[0], "image_id": 6, "score": 0.1}  # a listed picture without anybody
    file = tmp_path / "results.json"
    file.write_text(json.dumps([*answers, alarm]))
    said = json.loads(told(capsys, "evaluate", file, "--data", f"coco-keypoints:{tmp_path}", "--json"))
    assert (said["part"], said["images"], said["answers"]) == ("test", 4, 4)
    assert said["metrics"]["AP"] == pytest.approx(1.0)
    alone = f"coco-keypoints:{tmp_path / 'annotations' / 'people_val.json'}@{tmp_path / 'images'}"
    assert json.loads(told(capsys, "evaluate", file, "--data", alone, "--json"))["metrics"] == said["metrics"]
    assert main(["evaluate", str(file), "--data", f"coco-keypoints:{tmp_path}", "--part", "all"]) == 2
    assert "two pictures have the same id" in capsys.readouterr().err


@official
@pytest.mark.parametrize(("kind", "flip"), [("simcc", True), ("heatmap", False)])
def test_results_score_what_evaluate_says(
    kind: str, flip: bool, crowd: Path, request: pytest.FixtureRequest, capsys: Any
) -> None:
    from classroomkd.tasks.pose.official import official_json

    student, words = request.getfixturevalue(kind), ["--flip-test"] if flip else []
    truth = relabelled(crowd, predicted(capsys, student, crowd, "--boxes", crowd / "people.json", *words))
    found = predicted(capsys, student, crowd, "--boxes", truth, *words)
    data = f"coco-keypoints:{truth}@{crowd / 'images'}"
    said = json.loads(told(capsys, "evaluate", student, "--data", data, "--official", "--json", *words))
    assert (said["metric"], said["boxes"], said["samples"], said["flip_test"]) == ("AP_gtbox", "gt", 32, flip)
    theirs = official_json(json.loads(truth.read_text()), found)
    assert 0.1 < theirs["AP"] < 1
    for name, value in theirs.items():
        key = "AP_gtbox" if name == "AP" else f"AP_gtbox:{name}"
        assert said["metrics"][key] == pytest.approx(value, abs=1e-12), name
        assert said["official"][name] == pytest.approx(value, abs=1e-12), name
    file = crowd / "results.json"
    alone = json.loads(told(capsys, "evaluate", file, "--data", data, "--official", "--json"))
    assert (alone["metric"], alone["answers"]) == ("AP", 32)
    for name, value in theirs.items():
        assert alone["metrics"][name] == pytest.approx(value, abs=1e-12), name
        assert alone["official"][name] == pytest.approx(value, abs=1e-12), name
    assert alone["metrics"]["visible"] == pytest.approx(said["metrics"]["AP_gtbox:visible"], abs=1e-12)
    assert "largest difference to pycocotools" in told(capsys, "evaluate", file, "--data", data, "--official")
    assert said["metrics"]["AP_gtbox:visible"] > 0
    assert "AP_gtbox:hidden" in said["metrics"]
    assert said["by_joint"] == "PCK@0.2"
    assert len(said["per_class"]) == 17


@official
def test_a_detectors_boxes(simcc: Path, crowd: Path, capsys: Any) -> None:
    from classroomkd.tasks.pose.official import official_json

    people = json.loads((crowd / "people.json").read_text())
    rng = np.random.default_rng(1)
    boxes = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "bbox": (np.array(person["bbox"]) + shift).tolist(),
            "score": float(rng.uniform(0.3, 1)),
        }
        for person in people["annotations"]
        for shift in (0.0, 0.01, 4.0)  # the second is the first over again, which OKS-NMS takes out
    ]
    (crowd / "boxes.json").write_text(json.dumps(boxes))
    found = predicted(capsys, simcc, crowd, "--boxes", crowd / "boxes.json")
    assert 32 <= len(found) < 80
    by_annotation = predicted(capsys, simcc, crowd, "--boxes", crowd / "people.json")
    truth = relabelled(crowd, by_annotation)
    recipe = crowd / "run" / "recipe.yaml"
    seed = recipe.parent / "none" / "seed0"
    seed.mkdir(parents=True)
    (seed / "student.safetensors").write_bytes(simcc.read_bytes())
    source = f"coco-keypoints:{truth}@{crowd / 'images'}"
    recipe.write_text(
        json.dumps({"data": {"source": source, "size": [64, 48], "options": {"boxes": str(crowd / "boxes.json")}}})
    )
    said = json.loads(told(capsys, "evaluate", crowd / "run", "--part", "all", "--official", "--json"))
    assert (said["metric"], said["boxes"], said["samples"]) == ("AP_detector", "detector", 96)
    theirs = official_json(
        json.loads(truth.read_text()), predicted(capsys, simcc, crowd, "--boxes", crowd / "boxes.json")
    )
    assert theirs["AP"] > 0.1
    assert said["accuracy"] == pytest.approx(theirs["AP"], abs=1e-12)
    assert said["official"]["AR"] == pytest.approx(theirs["AR"], abs=1e-12)


def test_the_table_names_boxes_and_joints(simcc: Path, crowd: Path, capsys: Any) -> None:
    source = f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}"
    shown = told(capsys, "evaluate", simcc, "--data", source, "--part", "test")
    assert "AP_gtbox" in shown
    assert "the annotations' boxes" in shown
    assert "left_shoulder" in shown
    assert "AP_gtbox:hidden" in shown
    assert "pycocotools" not in shown


def test_joints_are_matched_by_name(simcc: Path, crowd: Path, capsys: Any) -> None:
    """Data whose joints stand in another order, and fewer of them, score each the same."""
    people = json.loads((crowd / "people.json").read_text())
    order = [16, 5, 6, 11, 12, 0, 3, 4, 15]
    for person in people["annotations"]:
        person["keypoints"] = np.array(person["keypoints"]).reshape(-1, 3)[order].ravel().tolist()
    people["categories"][0]["keypoints"] = [COCO.joints[k] for k in order]
    (crowd / "fewer.json").write_text(json.dumps(people))

    def scores(file: str) -> dict[str, float]:
        source = f"coco-keypoints:{crowd / file}@{crowd / 'images'}"
        said = json.loads(told(capsys, "evaluate", simcc, "--data", source, "--json"))
        return said["per_class"]  # type: ignore[no-any-return]

    whole = scores("people.json")
    assert scores("fewer.json") == [whole[k] for k in order]
    people["categories"][0]["keypoints"][2] = "tail"
    (crowd / "tail.json").write_text(json.dumps(people))
    assert main(["evaluate", str(simcc), "--data", f"coco-keypoints:{crowd / 'tail.json'}@{crowd / 'images'}"]) == 2
    assert "the student does not find tail, which the data" in capsys.readouterr().err


def test_validation_is_not_judged_by_the_test_parts_pictures(monkeypatch: pytest.MonkeyPatch, crowd: Path) -> None:
    from classroomkd import data
    from classroomkd.tasks.pose.evaluate import _people

    spec = {"source": f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}", "size": [64, 48]}
    images = data.load(spec, task="pose")
    assert images.people is not None
    bare = People(**{**vars(images.people), "bare": np.array([3])})
    images = type(images)(**{**vars(images), "people": bare})
    assert len(_people(images, images.val.ids, "val")[0].bare) == 0
    assert len(_people(images, images.test.ids, "test")[0].bare) == 1


# --- predict ----------------------------------------------------------------------------------------------------------


def test_without_boxes_an_image_is_one_person(simcc: Path, crowd: Path, capsys: Any) -> None:
    found = predicted(capsys, simcc, crowd)
    assert [entry["image_id"] for entry in found] == list(range(100, 124))  # the numbers they are called by
    assert [entry["file_name"] for entry in found[:2]] == ["000100.png", "000101.png"]
    assert all(len(entry["keypoints"]) == 51 and entry["category_id"] == 1 for entry in found)
    assert len(read_results(crowd / "results.json", set(range(100, 124)), 17).score) == 24
    (crowd / "images" / "000123.png").rename(crowd / "images" / "last.png")
    assert [entry["image_id"] for entry in predicted(capsys, simcc, crowd)] == list(range(1, 25))


def test_rows_and_lines(simcc: Path, crowd: Path, capsys: Any) -> None:
    found = predicted(capsys, simcc, crowd)
    rows = list(csv.DictReader(told(capsys, "predict", simcc, crowd / "images").splitlines()))
    assert len(rows) == 24
    assert rows[0]["file"] == str(crowd / "images" / "000100.png")
    assert float(rows[3]["left_wrist_x"]) == pytest.approx(found[3]["keypoints"][27], abs=1e-3)
    assert float(rows[3]["score"]) == pytest.approx(found[3]["score"], abs=1e-6)
    lines = [json.loads(line) for line in told(capsys, "predict", simcc, crowd / "images", "--json").splitlines()]
    assert lines == found


def test_batches_and_folders_change_nothing(simcc: Path, crowd: Path, capsys: Any) -> None:
    boxes = ["--boxes", crowd / "people.json"]
    whole = predicted(capsys, simcc, crowd, *boxes)
    few = predicted(capsys, simcc, crowd, *boxes, "--batch-size", 5)
    (crowd / "images" / "deep").mkdir()
    for file in sorted((crowd / "images").glob("0001[01]*.png")):
        file.rename(file.parent / "deep" / file.name)
    moved = predicted(capsys, simcc, crowd, *boxes)
    for other in (few, moved):
        assert [e["image_id"] for e in other] == [e["image_id"] for e in whole]
        assert np.allclose([e["keypoints"] for e in other], [e["keypoints"] for e in whole], atol=1e-3)
    assert {entry["file_name"] for entry in moved} >= {"deep/000100.png", "000123.png"}


def test_what_cannot_be_looked_at_is_named(simcc: Path, crowd: Path, capsys: Any) -> None:
    (crowd / "images" / "000105.png").write_bytes(b"no image")
    with (crowd / "images" / "000106.png").open("r+b") as file:
        file.truncate(900)
    people = json.loads((crowd / "people.json").read_text())
    people["annotations"][0]["bbox"] = [500, 500, 10, 10]
    people["annotations"][3]["bbox"] = [5, 5, 4, 4]
    people["annotations"][4]["iscrowd"] = 1
    (crowd / "people.json").write_text(json.dumps(people))
    (crowd / "images" / "extra.png").write_bytes((crowd / "images" / "000101.png").read_bytes())
    out = crowd / "results.json"
    assert (
        main(["predict", str(simcc), str(crowd / "images"), "--boxes", str(crowd / "people.json"), "--out", str(out)])
        == 0
    )
    err = capsys.readouterr().err
    for words in (
        "000105.png", "000106.png", "boxes outside the image or without a size left out", "smaller than 8 pixels",
        "1 crowds and persons without a labelled joint", "1 images without a box in people.json (extra.png)",
    ):  # fmt: skip
        assert words in err, words
    assert len(json.loads(out.read_text())) == 32 - 3 - 3  # three boxes, and 000105's one and 000106's two persons
    assert main(["predict", str(simcc), str(crowd / "images"), "--out", str(out)]) == 0
    assert "skipped: " + str(crowd / "images" / "000105.png") in capsys.readouterr().err
    out.write_text("old")
    for file in (crowd / "images").iterdir():
        file.write_bytes(b"nothing")
    assert main(["predict", str(simcc), str(crowd / "images"), "--out", str(out)]) == 2
    assert "no person in" in capsys.readouterr().err
    assert out.read_text() == "old"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "is no whole JSON"),
        ("[1]", "neither COCO annotations nor a list of boxes"),
        ('[{"bbox": [0, 0, 9, 9]}]', "box 0 (from 0) has neither image_id nor file_name"),
        ('[{"image_id": 100, "bbox": [0, 0, 9]}]', "box 0 (from 0) needs bbox [x, y, width, height]"),
        ('[{"image_id": 100, "bbox": [0, 0, 9, 9], "score": NaN}]', "a score that is not a finite number"),
        ('[{"image_id": 7, "bbox": [0, 0, 9, 9]}]', "none of its images (7) is in"),
        ('[{"image_id": 100, "category_id": 3, "bbox": [0, 0, 9, 9]}]', "1 boxes of categories other than 1"),
        ('[{"image_id": 100, "bbox": [0, 0, NaN, 9]}]', "boxes that are not finite"),
        ('{"images": []}', "is no COCO annotation file"),
    ],
)
def test_boxes_that_do_not_fit(content: str, message: str, simcc: Path, crowd: Path, capsys: Any) -> None:
    (crowd / "boxes.json").write_text(content)
    assert main(["predict", str(simcc), str(crowd / "images"), "--boxes", str(crowd / "boxes.json")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_boxes_by_name(simcc: Path, crowd: Path, capsys: Any) -> None:
    entries = [
        {"file_name": "000101.png", "bbox": [0, 0, 64, 64]},
        {"file_name": "000104.png", "image_id": 9, "bbox": [1, 2, 50, 60], "score": 0.5},
        {"file_name": "gone.png", "bbox": [1, 2, 50, 60]},
    ]
    (crowd / "boxes.json").write_text(json.dumps(entries))
    out = crowd / "results.json"
    assert (
        main(["predict", str(simcc), str(crowd / "images"), "--boxes", str(crowd / "boxes.json"), "--out", str(out)])
        == 0
    )
    err = capsys.readouterr().err
    assert "1 boxes of 1 images that are not in" in err
    assert "22 images without a box" in err
    found = json.loads(out.read_text())
    assert [(e["image_id"], e["file_name"]) for e in found] == [(101, "000101.png"), (9, "000104.png")]
    whole = predicted(capsys, simcc, crowd)[1]
    assert np.allclose(found[0]["keypoints"], whole["keypoints"], atol=1e-3)  # the box of the whole image


def test_photographs_are_looked_at_upright(simcc: Path, crowd: Path, capsys: Any, tmp_path: Path) -> None:
    """A square picture that is stored lying and says so."""
    (tmp_path / "lying").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(crowd / "images" / "000101.png") as image:
        assert image.size == (64, 64)
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying" / "a.png", exif=exif)
    told(capsys, "predict", simcc, tmp_path / "lying", "--out", tmp_path / "a.json")
    lying = json.loads((tmp_path / "a.json").read_text())[0]
    assert np.allclose(lying["keypoints"], predicted(capsys, simcc, crowd)[1]["keypoints"], atol=1e-3)


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("predict", ["--top", "3"], "--top has no meaning for this student, whose task is pose"),
        ("predict", ["--boxes", "nowhere.json"], "--boxes nowhere.json: No such file"),
        ("predict", ["--out", "x.txt"], "name it .csv or .jsonl (pose: or .json)"),
        ("evaluate", [], "lies in no run folder; say which data to score it on"),
        ("evaluate", ["--data", "digits"], "'digits' has classes, not persons with joints"),
    ],
)
def test_what_means_nothing_for_pose(
    verb: str, words: list[str], message: str, simcc: Path, crowd: Path, capsys: Any
) -> None:
    images = [str(crowd / "images")] if verb == "predict" else []
    assert main([verb, str(simcc), *images, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--boxes", "--draw", "--flip-test", "--out"])
def test_what_means_nothing_for_classes(word: str, classifier: Path, crowd: Path, capsys: Any) -> None:
    value = {"--flip-test": [], "--out": [str(crowd / "x.json")]}.get(word, ["x"])
    assert main(["predict", str(classifier), str(crowd / "images"), word, *value]) == 2
    assert ("has no meaning" if word != "--out" else "classes are written as") in capsys.readouterr().err


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_with_skeletons(simcc: Path, crowd: Path, capsys: Any) -> None:
    folder = crowd / "drawn"
    told(capsys, "predict", simcc, crowd / "images", "--boxes", crowd / "people.json", "--draw", folder)
    drawn = sorted(folder.iterdir())
    assert [file.name for file in drawn[:2]] == ["000100.png.jpg", "000101.png.jpg"]
    assert len(drawn) == 24
    with Image.open(drawn[0]) as picture:
        assert picture.size == (512, 256)
    images = crowd / "images"
    assert main(["predict", str(simcc), str(images), "--draw", str(images / "inside")]) == 2
    assert "where the images are; give a folder elsewhere" in capsys.readouterr().err
    assert not (images / "inside").exists()
    assert main(["predict", str(simcc), str(images / "000101.png"), "--draw", str(images)]) == 2
    told(capsys, "predict", simcc, images / "000101.png", "--draw", images / "inside")
    assert [file.name for file in (images / "inside").iterdir()] == ["000101.png.jpg"]


def test_unsure_joints_are_thin_and_unknown_ones_absent() -> None:
    from classroomkd.data.skeleton import Skeleton
    from classroomkd.export.drawing import draw_skeletons

    skeleton = Skeleton("stick", ("left_end", "right_end"), ((0, 1),), (0.1, 0.1), ((0, 1),), ())
    grey = np.full((100, 200, 3), 128, np.uint8)

    def painted(first: float, second: float) -> int:
        drawn = np.asarray(draw_skeletons(grey, [[[20, 50, first], [180, 50, second]]], skeleton)).astype(int)
        assert drawn.shape == (300, 600, 3)
        return int((np.abs(drawn - 128).max(-1) > 20).sum())

    sure, unsure, alone = painted(0.9, 0.9), painted(0.9, 0.1), painted(0.9, 0.0)
    assert sure > 2 * unsure > 2 * alone > 0
    assert painted(0.0, 0.0) == 0
    shown = draw_skeletons(grey, [[[20, 50, 0.9], [180, 50, 0.9]]], skeleton)
    orange, blue = shown.getpixel((62, 151)), shown.getpixel((541, 151))
    assert isinstance(orange, tuple)
    assert isinstance(blue, tuple)
    assert orange[0] > 200 > orange[2]
    assert blue[2] > 200 > blue[0]


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    from classroomkd.export.drawing import save_drawn

    save_drawn(np.zeros((60, 3200, 3), np.uint8), np.zeros((0, 17, 3)), COCO, tmp_path / "deep" / "a.jpg")
    with Image.open(tmp_path / "deep" / "a.jpg") as picture:
        assert picture.size == (1600, 30)


# --- networks by name -------------------------------------------------------------------------------------------------


def test_inspect_pose_networks(capsys: Any) -> None:
    said = json.loads(told(capsys, "inspect", "simcc_tiny", "--json"))
    assert (said["task"], said["joints"], said["shape"]) == ("pose", 17, [3, 64, 64])
    assert said["head"] == "simcc, 17 x 256"
    assert {tap["name"] for tap in said["taps"]} >= {"body", "head"}
    shown = told(capsys, "inspect", "heatmap_tiny", "--shape", "3x64x48", "--joints", "14", "--task", "pose")
    assert "answer: heatmap, 14 x 16 x 12" in shown
    assert "64x48" in shown
    for words, message in (
        (["simcc_tiny", "--classes", "10"], "--classes has no meaning for simcc_tiny"),
        (["resnet8", "--joints", "10"], "--joints has no meaning for resnet8"),
        (["resnet8", "--task", "pose"], "unknown pose network 'resnet8'"),
        (["resnet8", "--task", "depth"], "--task depth: choose one of"),
    ):
        assert main(["inspect", *words]) == 2
        assert message in capsys.readouterr().err


def test_lists_say_what_is_for_pose(capsys: Any) -> None:
    rows = {row["name"]: row for row in json.loads(told(capsys, "list", "models", "--json"))}
    assert (rows["simcc_tiny"]["task"], rows["simcc_tiny"]["size"]) == ("pose", "64x64")
    assert rows["resnet20"]["task"] == "classification"
    assert "heatmap:timm:NAME" in told(capsys, "list", "models")
    tasks = {row["name"]: row for row in json.loads(told(capsys, "list", "tasks", "--json"))}
    methods = {row["name"]: row["tasks"] for row in json.loads(told(capsys, "list", "methods", "--json"))}
    assert "classroomkd" in tasks["pose"]["methods"]
    for task, row in tasks.items():
        assert row["methods"] == [name for name, able in methods.items() if task in able]
