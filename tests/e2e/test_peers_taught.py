"""A teacher that is trained beside students which teach each other, by the command line: roles, scores, ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import classroomkd as ck
from classroomkd import data
from classroomkd.cli.app import main
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers

PEERS = "peers=[{name: b, model: convnet4}, {name: t, model: convnet8, role: teacher}]"
MENTORS = "mentors=[{name: big, model: convnet8}]"
ARMS = (
    "methods=[{name: kdml, label: online},{name: kdml, order: gauss_seidel, label: turns},"
    "{name: kdml, teacher: frozen, label: frozen}]"
)


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, MENTORS, PEERS, ARMS, "train.epochs=2", "train.ema=0.5", "seeds=[0]", "bank=exact"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("kdml") / "run"
    assert main([*words, "--out", str(out), "--quiet"]) == 0
    return out


def variants(out: Path, arm: str) -> list[dict[str, Any]]:
    entries = json.loads((out / "summary.json").read_text())["entries"]
    found: list[dict[str, Any]] = next(e for e in entries if e["method"] == arm)["variants"]
    return found


@pytest.mark.parametrize("arm", ["online", "turns"])
def test_the_teacher_has_its_role_its_scores_and_its_file(out: Path, arm: str) -> None:
    found = variants(out, arm)
    roles = {v["name"]: v.get("role") for v in found if v["kind"] == "trainee"}
    assert roles == {"student": None, "b": None, "t": "teacher"}
    assert [v.get("role") for v in found if (v["name"], v["kind"]) == ("t", "ema")] == ["teacher"]
    assert (out / arm / "seed0" / "peers" / "t.safetensors").is_file()
    (teacher,) = [v for v in found if (v["name"], v["kind"]) == ("t", "trainee")]
    assert 0 <= teacher["test_last"] <= 1


def test_a_frozen_teacher_is_a_mentor_whose_answers_are_stored(out: Path) -> None:
    assert {v["name"] for v in variants(out, "frozen")} == {"student", "b", "ensemble"}
    entries = json.loads((out / "summary.json").read_text())["entries"]
    asked = {entry["method"]: entry.get("mentor_answers") for entry in entries}
    assert asked["online"] is asked["turns"] is None
    assert asked["frozen"] <= 2 * 60  # epochs, samples: one answer serves both students
    teaching = json.loads((out / "frozen" / "seed0" / "teaching.json").read_text())
    assert teaching["mentors"] == ["big"]


def test_the_ensemble_is_the_mean_of_the_students_probabilities_without_the_teacher(out: Path, smoke: str) -> None:
    folder = out / "online" / "seed0"
    taught = [ck.load_student(folder / file) for file in ("student.safetensors", "peers/b.safetensors")]
    recipe = ck.recipe.load_recipe(out / "recipe.yaml")
    images = data.load(recipe.data)
    inputs = Inputs(images.mean, images.std, torch.device("cpu"))
    said, target = zip(*(answers(one.module, images.test, inputs) for one in taught), strict=True)
    mean = torch.stack(said).softmax(-1).mean(0)
    (whole,) = [v for v in variants(out, "online") if v["kind"] == "ensemble"]
    assert whole["test_last"] == float((mean.argmax(-1) == target[0]).double().mean())
    differ = (said[0].argmax(-1) != said[1].argmax(-1)).double().mean()
    assert whole["disagreement"] == pytest.approx(float(differ))


def test_the_log_has_everybodys_scores_and_how_much_the_students_differ_by_epoch(out: Path) -> None:
    lines = [json.loads(line) for line in (out / "online" / "seed0" / "metrics.jsonl").read_text().splitlines()]
    vals = [line for line in lines if line["kind"] == "val"]
    assert len(vals) == 2
    for line in vals:
        assert set(line["peers"]) == {"b", "t"}
        assert 0 <= line["disagreement"] <= 1
        assert 0 <= line["ensemble"] <= 1
    assert {"t.supervised", "b.distilled", "b.mutual"} <= set(lines[0]["terms"])


def test_the_page_says_who_the_teacher_is_and_leaves_it_out_of_the_ensemble(out: Path) -> None:
    page = (out / "report.html").read_text()
    part = page[page.index('id="trainees"') :].partition("</section>")[0]
    found = {v["name"]: v for v in variants(out, "online") if v["kind"] in ("trainee", "ensemble")}
    gain = found["ensemble"]["test_last"] - (found["student"]["test_last"] + found["b"]["test_last"]) / 2
    assert f"{abs(100 * gain):.1f}" in part
    assert "teacher" in part
    assert part.count("Who taught whom") == 3  # a square an arm
    assert 'href="#trainees"' in page
    lines = [json.loads(line) for line in (out / "online" / "seed0" / "metrics.jsonl").read_text().splitlines()]
    given = [line["given"]["b"]["t"] for line in lines if line["kind"] == "train" and line["epoch"] > 1]
    assert min(given) > 0
    assert "b from t 0." in part
    assert "student from big 0." in part  # a frozen teacher's column


def test_one_student_has_no_ensemble_and_is_said_to_be_alone(words: list[str], tmp_path: Path, capsys: Any) -> None:
    more = ["peers=[{name: t, model: convnet8, role: teacher}]", "methods=[kdml]", "train.epochs=1", "mentors=[]"]
    assert main([*words, *more, "bank=off", "--out", str(tmp_path / "run"), "--json", "--quiet"]) == 0
    (own,) = json.loads(capsys.readouterr().out)["entries"]
    assert [(v["name"], v["kind"]) for v in own["variants"] if v["kind"] != "ema"] == [
        ("student", "trainee"), ("t", "trainee"),
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*words, *more, "bank=off", "--dry-run", "--json"]) == 0
    assert "nobody to learn with" in capsys.readouterr().err


def test_a_teacher_is_a_peer_of_python(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = ck.models.create("convnet8", num_classes=10)
    peers = {"b": "convnet4", "t": {"model": teacher, "role": "teacher"}}
    run = ck.distill(
        "convnet4", [], method="kdml", peers=peers, out=tmp_path / "run", epochs=1, device="cpu", threads=1,
        data={"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32}},
    )  # fmt: skip
    (entry,) = run.summary["entries"]
    assert {v["name"]: v.get("role") for v in entry["variants"]}["t"] == "teacher"


POSE = """
task: pose
data:
  source: puppets
  options: {train: 60, test: 20, hard: 0.2, image_size: 32, scale: 0.1, rotation: 10, half_body: 0, metric: "PCK@0.2"}
  size: 32
  views: person
student: HEAD_tiny
mentors: [{name: big, model: HEAD_tiny}]
peers: [{name: b, model: HEAD_tiny}, {name: t, model: HEAD_tiny, role: teacher}]
methods: [dml, {name: kdml, label: online}, {name: kdml, teacher: frozen, order: gauss_seidel, label: frozen}]
train: {epochs: 1, batch_size: 20, optimizer: adamw, lr: 0.003, log_every: 1}
check_mentors: "off"
device: cpu
workers: 1
threads: 1
"""


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_pose_has_its_ensemble_and_its_disagreement(tmp_path: Path, head: str) -> None:
    (tmp_path / "pose.yaml").write_text(POSE.replace("HEAD", head))
    out = tmp_path / "run"
    assert main(["run", str(tmp_path / "pose.yaml"), "--out", str(out), "--quiet"]) == 0
    for entry in json.loads((out / "summary.json").read_text())["entries"]:
        whole = entry["variants"][-1]
        assert whole["kind"] == "ensemble"
        assert 0 <= whole["test_last"] <= 1
        assert 0 <= whole["disagreement"] <= 1
        lines = (out / entry["method"] / "seed0" / "metrics.jsonl").read_text().splitlines()
        (val,) = [line for line in map(json.loads, lines) if line["kind"] == "val"]
        assert {"ensemble", "disagreement", "peers"} <= set(val)
    assert "% of the test joints" in (out / "report.html").read_text()
    assert "mentors_vote" not in json.loads((out / "summary.json").read_text())
    before = json.loads((out / "gallery.json").read_text())
    words = ["run", str(tmp_path / "pose.yaml"), "export=b", "--out", str(out), "--resume", "--quiet"]
    assert main(words) == 0  # the pictures are of who is exported
    after = json.loads((out / "gallery.json").read_text())
    assert before["who"] == after["who"]
    assert before["persons"] != after["persons"]
    told = json.loads((out / "summary.json").read_text())["entries"]
    assert {entry["exported"] for entry in told} == {"b"}
    assert all("test_metrics" in entry for entry in told)
