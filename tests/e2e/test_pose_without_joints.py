"""Pose where most people, or all, have no joints: from data to the page."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from banked import furthest
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from unlabelled import killed_within_an_epoch

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.data import puppets
from classroomkd.errors import UserError
from classroomkd.models.pose import resolve_pose
from classroomkd.tasks.pose.agreement import DISTANCE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "people"))
from people_pieces import dataset, scene

SHORT: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.01,
    "device": "cpu",
    "task": "pose",
    "check_mentors": "off",
}
SIZE = (32, 32)
OPTIONS: dict[str, Any] = {"train": 40, "test": 20, "hard": 0.2, "image_size": 32, "metric": "PCK@0.2"}
PUPPETS: dict[str, Any] = {"source": "puppets", "size": 32, "options": OPTIONS}


def figures(folder: Path, n: int = 24, start: int = 500) -> Path:
    """Drawn persons, a picture each."""
    folder.mkdir(parents=True)
    for i, image in enumerate(puppets.scenes(0, np.arange(start, start + n), image_size=32, hard=0.2).images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:03}.png")
    return folder


def mentors() -> dict[str, nn.Module]:
    """Networks that answer something of their own."""
    made: dict[str, nn.Module] = {}
    for seed, (name, spec) in enumerate((("bins", "simcc_tiny"), ("maps", "heatmap_tiny"))):
        torch.manual_seed(seed)
        made[name] = resolve_pose(spec, 17, SIZE)
        with torch.no_grad():  # heads begin near zero
            for parameter in made[name].get_submodule("head").parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return made


def distilled(root: Path, name: str, data: Any, method: Any = "classroomkd", **more: Any) -> ck.Run:
    settings = {**SHORT, "cache": str(root / "cache"), "bank": "off", **more}
    chosen = {} if "methods" in settings else {"method": method}
    who = settings.pop("mentors", None) or mentors()
    return ck.distill("simcc_tiny", who, data, out=root / name, **chosen, **settings)


def weights(run: ck.Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(
        run.folder / run.summary["arms"][0]["folder"] / "seed0/student.safetensors"
    )
    return found


@pytest.mark.parametrize("method", ["classroomkd", "votes"])
def test_hidden_joints_reach_no_loss(tmp_path: Path, method: str) -> None:
    data = scene(1, images=20)
    keys: dict[str, Any] = {"size": [32, 32], "labels": {"share": 0.25}, "views": "person"}
    first = {"source": dataset(tmp_path / "first", train=data), **keys}
    train = ck.data.load(first, task="pose").train
    shown, hidden = (train.ids[which].tolist() for which in (train.labelled, ~train.labelled))

    def moved(place: int) -> None:
        joints = np.array(data["annotations"][place]["keypoints"]).reshape(17, 3)
        joints[:, :2] += 3
        data["annotations"][place]["keypoints"] = joints.reshape(-1).tolist()

    for place in hidden:
        moved(place)
    again = {"source": dataset(tmp_path / "again", train=data), **keys}
    one, other = (weights(distilled(tmp_path, name, d, method)) for name, d in (("one", first), ("other", again)))
    assert furthest(one, other) == 0
    moved(shown[0])
    seen = {"source": dataset(tmp_path / "seen", train=data), **keys}
    assert furthest(one, weights(distilled(tmp_path, "third", seen, method))) > 0


def test_stored_answers_teach_people_without_joints_as_asked_ones(tmp_path: Path) -> None:
    data = {**PUPPETS, "unlabelled": f"images:{figures(tmp_path / 'people')}", "views": "person_flip"}
    online, stored, again = (
        weights(distilled(tmp_path, name, data, bank=bank))
        for name, bank in (("a", "off"), ("b", "exact"), ("c", "exact"))
    )
    assert furthest(stored, again) == 0
    assert furthest(online, stored) < 0.01  # answers are stored in half precision
    assert furthest(online, weights(distilled(tmp_path, "alone", PUPPETS))) > 0.01


def test_a_training_goes_on_within_an_epoch_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {**PUPPETS, "labels": {"share": 0.25}}
    more = {"unlabelled_ratio": 2.0, "outliers": 0.5, "log_every": 1}
    whole = weights(distilled(tmp_path, "whole", data, **more))
    with killed_within_an_epoch(monkeypatch):
        distilled(tmp_path, "cut", data, **more)
    assert furthest(whole, weights(distilled(tmp_path, "cut", data, resume=True, **more))) == 0


RECIPE = """
task: pose
data:
  source: puppets
  options: {train: 40, test: 20, hard: 0.2, image_size: 32, metric: "PCK@0.2"}
  size: 32
  labels: {share: 0.25}
student: simcc_tiny
mentors: [simcc_tiny, heatmap_tiny]
methods: [none, average, classroomkd, camkd, dkd, votes]
train: {epochs: 1, batch_size: 12, outliers: 0.9}
mentor_train: {epochs: 1}
check_mentors: "off"
bank: "off"
device: cpu
workers: 1
threads: 1
"""


def test_from_a_recipe_with_few_labels_to_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.yaml").write_text(RECIPE)
    words = ["run", str(tmp_path / "few.yaml"), f"cache={tmp_path / 'cache'}", "--out", str(tmp_path / "run")]
    assert main([*words, "--debug"]) == 0
    said = capsys.readouterr()
    assert "dkd teaches the labelled" in said.out + said.err
    made = json.loads((tmp_path / "run/summary.json").read_text())
    assert made["failures"] == []
    assert made["metric"] == "PCK@0.2"
    assert (made["data"]["labelled"], made["data"]["student_train"]) == (9, 36)
    assert [m["samples"] for m in made["mentors"]] == [9, 9]
    page = (tmp_path / "run/report.html").read_text()
    assert "36 persons, 9 of them labelled" in page
    table = json.loads((tmp_path / "run/classroomkd/seed0/teaching.json").read_text())
    assert len(table["classes"]) == 17


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    (folder / "few.yaml").write_text(RECIPE)
    assert main(["run", str(folder / "few.yaml"), *words, "--out", str(folder / "no"), "--quiet"]) == 2
    return capsys.readouterr().err


def test_what_cannot_work_is_said_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = "data.labels={share: 0}"
    torch.save(resolve_pose("simcc_tiny", 17, SIZE).state_dict(), tmp_path / "m.pth")
    known = f"mentors=[{{name: m, model: simcc_tiny, weights: {tmp_path / 'm.pth'}}}]"
    assert "no training image has a label to train it on" in refused(capsys, tmp_path, none, "methods=[average]")
    said = refused(capsys, tmp_path, none, known, "methods=[average, dkd, none]")
    assert "'dkd' needs labels by its rule" in said
    assert "nothing to learn from" in said
    assert "data.labels.file" in refused(capsys, tmp_path, f"data.labels={{file: {tmp_path / 'few.yaml'}}}")
    assert not (tmp_path / "no").exists()


def alone(folder: Path, **more: Any) -> dict[str, Any]:
    return {"source": f"images:{figures(folder)}", "size": 32, "options": {"skeleton": "coco"}, **more}


def test_a_folder_of_people_is_taught_by_one_call(tmp_path: Path) -> None:
    run = distilled(tmp_path, "run", alone(tmp_path / "people"), methods=["average", "classroomkd"])
    made = run.summary
    assert made["metric"] == made["val_metric"] == "agreement"
    assert made["data"]["labelled"] == 0
    assert made["failures"] == []
    for entry in made["entries"]:
        figures_of = entry["test_metrics"]
        assert 0 <= entry["test_last"] <= 1
        assert {DISTANCE, "agreement with bins", "agreement with maps"} <= set(figures_of)
        assert not any(name.startswith(("PCK", "AP")) for name in figures_of)
    assert all(0 <= mentor["accuracy"] <= 1 for mentor in made["mentors"])
    page = run.report().read_text()
    assert "agreement with the mentors on joints" in page
    assert "none of them labelled" in page
    assert "the people about whose joints the mentors disagree most" in page
    with (run.folder / "to_label.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "annotation", "disagreement", "doubts"]
    assert len(rows) == made["unlabelled"]["pictures"] == made["data"]["student_train"]
    apart = [float(row["disagreement"]) for row in rows]
    assert apart == sorted(apart, reverse=True)
    assert 0 < apart[-1] < apart[0] < 1
    assert "PCK" not in page


def test_a_mentor_alone_agrees_with_itself(tmp_path: Path) -> None:
    settings = {**SHORT, "cache": str(tmp_path / "cache"), "bank": "off"}
    one = {"bins": mentors()["bins"]}
    run = ck.distill("simcc_tiny", one, alone(tmp_path / "people"), "average", out=tmp_path / "run", **settings)
    assert run.summary["mentors"][0]["accuracy"] == 1


def test_labels_of_the_test_part_alone_make_a_score(tmp_path: Path) -> None:
    data = {"train": f"images:{figures(tmp_path / 'people')}", "test": dataset(tmp_path / "coco"), "size": [32, 32]}
    run = distilled(tmp_path, "run", {**data, "options": {}})
    assert (run.summary["metric"], run.summary["val_metric"]) == ("AP_gtbox", "agreement")
    assert "PCK@0.2" in run.summary["entries"][0]["test_metrics"]
    assert run.summary["data"]["labelled"] == 0


def test_a_test_part_alone_may_lack_joints(tmp_path: Path) -> None:
    data = {"train": dataset(tmp_path / "coco"), "test": f"images:{figures(tmp_path / 'people')}", "size": [32, 32]}
    run = distilled(tmp_path, "run", data, mentors=["simcc_tiny"], mentor_train={"epochs": 1})
    made = run.summary
    assert (made["metric"], made["val_metric"]) == ("agreement", "AP_gtbox")
    assert made["mentors"][0]["accuracy"] == 1
    assert made["data"]["labelled"] == made["data"]["student_train"]
    assert {DISTANCE, "agreement with simcc_tiny"} <= set(made["entries"][0]["test_metrics"])
    assert run.report().exists()


def test_joints_are_named_by_the_mentors_files(tmp_path: Path) -> None:
    first = distilled(tmp_path, "first", PUPPETS, "none")
    file = first.folder / "none/seed0/student.safetensors"
    people = {"source": f"images:{figures(tmp_path / 'people')}", "size": 32}
    mentor = {"model": "simcc_tiny", "name": "taught", "weights": str(file)}
    settings = {**SHORT, "cache": str(tmp_path / "cache"), "bank": "off"}
    run = ck.distill("simcc_tiny", [mentor], people, "classroomkd", out=tmp_path / "run", **settings)
    assert run.summary["data"]["classes"][:2] == ["nose", "left_eye"]
    with pytest.raises(UserError, match=r"nobody says which joints there are.*data\.options\.skeleton"):
        distilled(tmp_path, "no", people)
    named = {**people, "options": {"skeleton": "coco"}}
    with pytest.raises(UserError, match="no training image has a label to train it on"):
        ck.distill("simcc_tiny", ["simcc_tiny"], named, "average", out=tmp_path / "no", **settings)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
