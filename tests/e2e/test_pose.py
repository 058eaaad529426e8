"""Pose from the command line: heads, sizes and skeletons that differ, stored answers, resuming, and every score."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from classroomkd.cli.app import main
from classroomkd.data.skeleton import COCO
from classroomkd.models.pose import resolve_pose
from classroomkd.recipe import load_recipe
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.tasks.pose.coding import SimCC
from classroomkd.tasks.pose.translation import Translation

RECIPE = """
task: pose
data:
  source: puppets
  options: {train: 60, test: 20, hard: 0.2, image_size: 32, scale: 0.1, rotation: 10, half_body: 0, metric: "PCK@0.2"}
  size: 32
  views: person
student: simcc_tiny
mentors:
  - {name: bins, model: simcc_tiny}
  - {name: maps, model: heatmap_tiny, size: 48}
methods: [none, classroomkd]
train: {epochs: 2, batch_size: 20, optimizer: adamw, lr: 0.003, log_every: 1, checkpoint_every: 1}
mentor_train: {epochs: 1}
check_mentors: "off"
bank: "off"
device: cpu
workers: 1
threads: 1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe; runs in it share their mentors."""
    folder = tmp_path_factory.mktemp("pose")
    sys.path.insert(0, str(folder))
    (folder / "pose.yaml").write_text(RECIPE)
    return folder


def run(home: Path, name: str, *words: str, code: int = 0) -> dict[str, Any]:
    out = home / name
    given = ["run", str(home / "pose.yaml"), f"cache={home / 'cache'}", *words, "--out", str(out), "--quiet"]
    assert main([*given, "--debug"]) == code
    made: dict[str, Any] = json.loads((out / "summary.json").read_text()) if code == 0 else {}
    return made


def student(home: Path, name: str, arm: str = "classroomkd") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(home / name / arm / "seed0" / "student.safetensors")
    return found


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[k].float() - b[k].float()).abs().max().item() for k in a)


def test_a_mixed_classroom_from_recipe_to_pictures(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = run(home, "mixed")
    assert (made["task"], made["metric"], made["failures"]) == ("pose", "PCK@0.2", [])
    assert [m["size"] for m in made["mentors"]] == [None, [48, 48]]
    entry = made["entries"][1]
    assert entry["test_metrics"]["PCK@0.2"] == entry["test_last"]
    assert {"AP_gtbox", "AP_gtbox:visible", "PCK@0.05_box"} <= set(entry["test_metrics"])
    taught = json.loads((home / "mixed" / "classroomkd" / "seed0" / "teaching.json").read_text())
    assert taught["classes"][0] == "nose"
    assert len(taught["active"]) == 2
    assert len(taught["active"][0]) == 17
    assert len(json.loads((home / "mixed" / "gallery.json").read_text())["persons"]) == 20
    page = (home / "mixed" / "report.html").read_text()
    assert "Pictures" in page
    assert "PCK@0.2" in page
    # Taught by them it is another student than alone, from the same start.
    assert furthest(student(home, "mixed"), student(home, "mixed", "none")) > 1e-3


def test_a_mentor_is_trained_at_its_own_size(home: Path) -> None:
    """Not taken from the cache of the same network at another size, whose weights would not even fit."""
    one = "mentors=[{name: bins, model: simcc_tiny}]"
    small, large = (run(home, n, one, "methods=[average]", *w) for n, w in (("32", []), ("48", ["mentors.0.size=48"])))
    assert large["mentors"][0]["parameters"] > small["mentors"][0]["parameters"]


def test_what_has_nothing_to_train_needs_weights(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "frozen_pose.py").write_text(
        "from classroomkd.models.pose import resolve_pose\n"
        "def make(joints, size):\n    return resolve_pose('simcc_tiny', joints, size).requires_grad_(False)\n"
    )
    words = ["run", str(home / "pose.yaml"), "mentors=[{name: a, model: 'py:frozen_pose:make'}]", "methods=[average]"]
    assert main([*words, "--trust-code", "--out", str(home / "frozen"), "--quiet"]) == 2
    assert "give checkpoint: FILE" in capsys.readouterr().err


def test_stored_answers_teach_like_asked_ones(home: Path) -> None:
    stored = run(home, "stored", "bank=views=2", "methods=[classroomkd]")
    assert stored["bank"]["forwards"] == 2 * 54 * 2  # views, persons, mentors: each at its own size
    again = run(home, "again", "bank=views=2", "methods=[classroomkd]")
    assert again["bank"]["forwards"] == 0 or again["entries"][0]["test_last"] == stored["entries"][0]["test_last"]
    assert furthest(student(home, "stored"), student(home, "again")) == 0


def test_the_bank_holds_what_online_mentors_say(home: Path) -> None:
    """The same two views, once from the bank and once asked: only the stored precision differs."""
    plain = 'data.options={train: 60, test: 20, hard: 0.2, image_size: 32, metric: "PCK@0.2"}'
    flip = [plain, "data.views=person_flip", "methods=[classroomkd]"]
    run(home, "online", *flip, "bank=off")
    run(home, "exact", *flip, "bank=exact")
    assert furthest(student(home, "online"), student(home, "exact")) < 5e-3


def test_resumed_to_the_same_bits(home: Path) -> None:
    run(home, "whole", "methods=[average]", "train.epochs=3")
    run(home, "cut", "methods=[average]", "train.epochs=3")
    folder = home / "cut" / "average" / "seed0"
    for file in ("entry.json", "student.safetensors"):
        (folder / file).unlink()
    assert main(["run", str(home / "pose.yaml"), f"cache={home / 'cache'}", "methods=[average]", "train.epochs=3",
                 "--out", str(home / "cut"), "--resume", "--quiet"]) == 0  # fmt: skip
    assert furthest(student(home, "whole", "average"), student(home, "cut", "average")) == 0


def test_two_skeletons_teach_their_union(home: Path) -> None:
    """A COCO and an MPII mentor from checkpoints; joints that the data has no label for are taught all the same."""
    for name, joints in (("coco", 17), ("mpii", 16)):
        torch.manual_seed(joints)
        save_file(resolve_pose("simcc_tiny", joints, (32, 32)).state_dict(), home / f"{name}.safetensors")
    mentors = ", ".join(
        f"{{name: {n}, model: simcc_tiny, checkpoint: {home / n}.safetensors, skeleton: {n}}}" for n in ("coco", "mpii")
    )
    words = ["data.options.skeleton=coco+mpii", f"mentors=[{mentors}]", "methods=[average]"]
    made = run(home, "union", *words)
    assert made["data"]["classes"][-1] == "head_top"
    assert len(made["data"]["classes"]) == 21
    assert any("no label here" in note for note in made["data"]["notes"])
    taught = json.loads((home / "union" / "average" / "seed0" / "teaching.json").read_text())
    by_name = dict(zip(taught["classes"], zip(*taught["active"], strict=True), strict=True))
    assert by_name["nose"] == (1, 0)
    assert by_name["pelvis"] == (0, 1)
    assert by_name["left_hip"] == (1, 1)
    run(home, "labelled", *words, "task={name: pose, distil_hidden: false}")
    taught = json.loads((home / "labelled" / "average" / "seed0" / "teaching.json").read_text())
    assert dict(zip(taught["classes"], taught["active"][1], strict=True))["pelvis"] == 0


def test_a_student_teaches_as_it_was_taught(home: Path) -> None:
    """Its file says how its answers are to be read, and which joints they are."""
    run(home, "sharp", "task={name: pose, beta: 4}", "data.options.skeleton=coco+mpii", "methods=[none]", "mentors=[]")
    taught = home / "sharp" / "none" / "seed0" / "student.safetensors"
    mentors = f"mentors=[{{name: old, model: simcc_tiny, checkpoint: {taught}}}]"
    made = run(home, "pupil", mentors, "methods=[average]")
    pupil = json.loads((home / "sharp" / "summary.json").read_text())["entries"][0]
    # The same answers about the 17 joints that have a label give the same score.
    assert made["mentors"][0]["accuracy"] == pytest.approx(pupil["test_last"])
    networks = Networks(open_context(load_recipe(home / "pose.yaml", [mentors, "methods=[average]"]), home / "pupil"))
    translate = networks.wrap(networks.context.recipe.mentors[0], networks.mentor("old")).translate
    assert isinstance(translate, Translation)
    assert isinstance(translate.mentor, SimCC)
    assert translate.mentor.beta == 4  # its bins are as sharp as they were taught to be


def test_a_detectors_boxes_are_nothing_to_learn_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    folder = home / "detected"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (40, 40)).save(folder / f"{i}.png")
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 40} for i in range(12)]
    person = {"category_id": 1, "bbox": [4, 4, 30, 30], "area": 500, "iscrowd": 0, "keypoints": [20, 20, 2] * 17}
    people = [{"id": i + 1, "image_id": i, **person} for i in range(12)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": [[1, 2]]}
    truth = {"images": images, "annotations": people, "categories": [category]}
    (folder / "people.json").write_text(json.dumps(truth))
    boxes = [{"image_id": i, "category_id": 1, "bbox": [4, 4, 30, 30], "score": 0.9} for i in range(12)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    data = f"data={{source: 'coco-keypoints:{folder}', size: 32, options: {{train: people.json, boxes: boxes.json}}}}"
    alone, boxes_file = f"coco-keypoints:{folder / 'people.json'}@{folder}", folder / "boxes.json"
    whole = f"data={{source: '{alone}', size: 32, options: {{boxes: {boxes_file}}}}}"
    for given in (data, whole):
        assert main(["run", str(home / "pose.yaml"), given, "--out", str(home / "wrong"), "--quiet"]) == 2
        assert "data.options.test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task={name: pose, per: persons}"], "task.per"),
        (["task={name: pose, loss_: kl}"], "did you mean 'loss'"),
        (["data=digits"], "has classes, not persons with joints"),
        (["student=resnet8"], "network for classification"),
        (["student=vitpose:usyd-community/vitpose-base"], "teach"),
        (["train.label_smoothing=0.1"], "label_smoothing"),
        (["data.views=crop"], "moves pixels but not joints"),
        (["mentors=[{model: simcc_tiny, train: {label_noise: 0.2}}]"], "joints have no classes"),
        (["mentors=[{model: simcc_tiny, skeleton: mpi}]"], "did you mean 'mpii'"),
        (["mentors=[{model: simcc_tiny, skeleton: [tail]}]"], "no joint of the student's"),
        (["mentors=[{model: simcc_tiny, skeleton: mpii}]"], "needs checkpoint: FILE"),
        (["mentors=[{model: simcc_tiny, joints: {left_hip: right_hip}}]"], "in an order of its own"),
        (["bank=views=2,top=5"], "top=K"),
        (["data.options.metric=PCK"], "there is no 'PCK'"),
        (["mentors=[{model: heatmap_tiny, head: {alligned: stride}}]"], "'aligned'"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    home: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(home / "pose.yaml"), *words, "--out", str(home / "wrong"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "not your mistake" not in error
    assert not (home / "wrong" / "summary.json").exists()


@pytest.mark.data
@pytest.mark.parametrize(
    ("recipe", "source", "metric"),
    [
        ("coco", "coco-keypoints:pose_coco_mini.zip", "AP_gtbox"),
        ("lsp", "coco-keypoints:pose_lspet2400.zip", "PCK@0.2"),
        ("mpii", "mpii:pose_mpii_sample.zip", "PCKh@0.5"),
    ],
)
def test_the_shipped_recipes_train_on_the_real_subsets(
    data_root: Path, tmp_path: Path, recipe: str, source: str, metric: str
) -> None:
    kind, _, file = source.partition(":")
    words = [
        f"data.source={kind}:{data_root / file}",
        "data.size=[64, 64]",
        "data.limit=12",
        "data.test_limit=4",
        "train.epochs=1",
        "train.warmup_epochs=0",
        "train.batch_size=4",
        "mentor_train={epochs: 1, batch_size: 4}",
        "check_mentors=off",
        "seeds=[0]",
        "bank=off",
        "workers=1",
        "threads=1",
        f"cache={tmp_path / 'cache'}",
    ]
    assert main(["run", f"pose/{recipe}", *words, "--out", str(tmp_path / "run"), "--quiet", "--debug"]) == 0
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(made["entries"]) == len(load_recipe(f"pose/{recipe}", words).arms())
    for entry in made["entries"]:
        assert 0 <= entry["test_metrics"][metric] <= 1
        assert entry["test_metrics"][metric] == entry["test_last"]
