"""Branches of one student by the command line: files, scores, export, views, resume; and what stays to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classroomkd import models
from classroomkd.cli.app import main
from classroomkd.report.records import read_run
from classroomkd.report.summary import load_summary

ARMS = (
    "methods=[none, {name: one, branches: 2}, {name: pcl, branches: 2}, "
    "{name: pcl, label: narrow, branches: 2, views: 1}]"
)
BRANCH = "branch-2"


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, "mentors=[]", "train.epochs=3", "seeds=[0]", "train.log_every=1", "train.ema=0.5",
            "data.views=crop_flip"]  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("branches") / "run"
    assert main([*words, ARMS, "--out", str(out), "--quiet"]) == 0
    return out


def entry(out: Path, method: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        e for e in json.loads((out / "summary.json").read_text())["entries"] if e["method"] == method
    )
    return found


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_every_branch_the_head_and_the_averages_have_scores(out: Path) -> None:
    kinds = {arm: {(v["name"], v["kind"]) for v in entry(out, arm)["variants"]} for arm in ("one", "pcl", "narrow")}
    both = {("student", "trainee"), ("student", "ema"), (BRANCH, "branch"), (BRANCH, "ema"), ("ensemble", "ensemble")}
    assert kinds["one"] == both | {("head", "head")}
    assert kinds["pcl"] == kinds["narrow"] == both | {
        ("head", "head"), ("mean-student", "ema"), (f"mean-{BRANCH}", "ema")
    }  # fmt: skip
    assert "variants" not in entry(out, "none")
    lines = [json.loads(x) for x in (out / "pcl" / "seed0" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "val"][-1]
    assert last["peers"].keys() == {BRANCH}
    assert {"ensemble", "head", "disagreement"} <= last.keys()


@pytest.mark.parametrize("arm", ["one", "pcl"])
def test_the_files_are_plain_networks_on_one_trunk(out: Path, arm: str) -> None:
    folder = out / arm / "seed0"
    student, branch = load_file(folder / "student.safetensors"), load_file(folder / "peers" / f"{BRANCH}.safetensors")
    plain = load_file(out / "none" / "seed0" / "student.safetensors")
    assert {k: v.shape for k, v in student.items()} == {k: v.shape for k, v in branch.items()}
    assert {k: v.shape for k, v in student.items()} == {k: v.shape for k, v in plain.items()}
    equal = {key for key, value in student.items() if torch.equal(value, branch[key])}
    assert {key for key in student if key.startswith(("stem", "stage1", "stage2"))} <= equal
    assert "fc.weight" not in equal
    assert any(key.startswith("stage3") for key in student.keys() - equal)


def test_a_branch_is_exported_in_the_students_place(out: Path, words: list[str], tmp_path: Path, capsys: Any) -> None:
    cut = tmp_path / "run"
    shutil.copytree(out, cut)
    assert main([*words, ARMS, f"export={BRANCH}", "--out", str(cut), "--resume", "--quiet"]) == 0
    made = entry(cut, "pcl")
    its = next(v for v in made["variants"] if (v["name"], v["kind"]) == (BRANCH, "branch"))
    assert (made["exported"], made["test_last"]) == (BRANCH, its["test_last"])
    assert entry(cut, "none")["test_last"] == entry(out, "none")["test_last"]
    file = tmp_path / "b.safetensors"
    assert main(["export", str(cut / "pcl" / "seed0"), str(file), "--network", BRANCH]) == 0
    network = models.create("convnet8", num_classes=10)
    models.load_checkpoint(network, file)
    capsys.readouterr()
    assert main([*words, ARMS, "export=branch-9", "--out", str(tmp_path / "no")]) == 2
    assert f"there is no trainee 'branch-9' (did you mean '{BRANCH}'?)" in capsys.readouterr().err


def test_resumed_to_the_bit_with_branches_head_and_averages(out: Path, words: list[str], tmp_path: Path) -> None:
    cut = tmp_path / "run"
    quick = [*words, ARMS, "--out", str(cut), "--quiet"]
    assert main([*quick, "train.epochs=3", "seeds=[0]"]) == 0
    for arm in ("one", "pcl"):
        folder = cut / arm / "seed0"
        (folder / "entry.json").unlink()
        kept = sorted(folder.glob("checkpoints/*.pt"))
        assert kept
        for file in ("student.safetensors", f"peers/{BRANCH}.safetensors"):
            (folder / file).unlink()
    assert main([*quick, "--resume"]) == 0
    for arm in ("one", "pcl"):
        for file in sorted((out / arm / "seed0").rglob("*.safetensors")):
            assert same(file, cut / file.relative_to(out)), file
        assert entry(cut, arm)["variants"] == entry(out, arm)["variants"]


def test_branches_change_nothing_of_the_student_alone(out: Path, words: list[str], tmp_path: Path) -> None:
    assert main([*words, "methods=[none]", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    name = Path("none") / "seed0" / "student.safetensors"
    assert same(out / name, tmp_path / "run" / name)


def test_every_branch_begins_with_weights_of_its_own(words: list[str], tmp_path: Path) -> None:
    """At next to no rate they stay where they began."""
    assert (
        main([*words, "method=one", "train.epochs=1", "train.lr=1e-9", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    )
    files = sorted((tmp_path / "run" / "one" / "seed0" / "peers").glob("branch-?.safetensors"))
    one, other = (load_file(file)["fc.weight"] for file in files)
    assert (one - other).abs().max() > 1e-3


def test_the_page_shows_branches(out: Path) -> None:
    log = next(log for log in read_run(load_summary(out)) if log.label == "pcl")
    assert log.trainees.keys() == {"student", BRANCH, "ensemble"}
    assert log.disagreement is not None
    page = (out / "report.html").read_text()
    part = page[page.index('id="trainees"') :].partition("</section>")[0]
    for name in ("mean-student", "head", BRANCH):
        assert f">{name}<" in part


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["data.views=none"], "a step shows 3 views of each sample, and none has one view of a sample; set data.views"),
        (["bank=views=2", "mentors=[convnet4]", "methods=[kd, pcl]"], "a step shows 3 views of each sample, and"),
        (["method={pcl: {after: nowhere}}"], "no tap 'nowhere'"),
        (["method={one: {after: fc}}"], "nothing that learns lies behind 'fc'"),
        (["method={pcl: {branches: 3, views: 2}}"], "one view for all of them, or one for each"),
        (["method={one: {branches: 1}}"], "branches = 1: must be at least 2"),
        (
            [
                "method={stages: [{name: a, method: one, trainees: all, epochs: 1}]}",
                "peers=[{name: b, model: convnet4}]",
            ],
            "'one' cannot teach several networks each by itself: it cuts the network into branches",
        ),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    words: list[str], tmp_path: Path, capsys: Any, more: list[str], sentence: str
) -> None:
    method = [] if any(word.startswith("method") for word in more) else ["method=pcl"]
    assert main([*words, *method, *more, "--out", str(tmp_path / "run")]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_pose_has_branches_without_a_line_of_its_own(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "task": "pose",
        "data": {
            "source": "puppets", "size": 48, "views": "person",
            "options": {"train": 40, "test": 20, "image_size": 64, "metric": "PCK@0.2"},
        },
        "student": "simcc_tiny",
        "methods": [{"name": "one", "branches": 2}, {"name": "pcl", "branches": 2}],
        "train": {"batch_size": 12, "optimizer": "sgd", "lr": 0.002, "epochs": 1},
        "device": "cpu", "threads": 1, "workers": 1,
    }  # fmt: skip
    (tmp_path / "pose.yaml").write_text(json.dumps(recipe))
    assert main(["run", str(tmp_path / "pose.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    for arm in ("one", "pcl"):
        assert {"branch", "head"} <= {v["kind"] for v in entry(tmp_path / "run", arm)["variants"]}
