"""Pose runs on files as people have them: nobody labelled in the test part, a metric that nobody allows, joints that a
mentor lacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from classroomkd.cli.app import main
from classroomkd.models.pose import resolve_pose

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "people"))
from people_pieces import dataset, scene

WORDS = [
    "task=pose", "student=simcc_tiny", "methods=[average]", "mentor_train={epochs: 1}", "check_mentors=off", "bank=off",
    "train={epochs: 1, batch_size: 8, optimizer: adamw, lr: 0.003}", "device=cpu", "workers=1", "threads=1",
]  # fmt: skip


def data(folder: Path, change: Any) -> list[str]:
    val = scene(2, images=8, seed=1, first=1001)
    for entry in val["annotations"]:
        change(entry)
    return [f"data={{source: '{dataset(folder, scene(2, images=14), val)}', size: [32, 32]}}"]


def run(folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text("data: puppets\n")
    out = folder / "run"
    given = [
        "run",
        str(folder / "recipe.yaml"),
        *WORDS,
        *words,
        f"cache={folder / 'cache'}",
        "--out",
        str(out),
        "--quiet",
    ]
    assert main(given) == code

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    made: dict[str, Any] = {}
    for file in sorted(out.rglob("*.json")) if code == 0 else []:
        read = json.loads(file.read_text(), parse_constant=refuse)
        made = read if file.name == "summary.json" else made
    return made


def unlabelled(entry: dict[str, Any]) -> None:
    entry["keypoints"] = [0] * 51


def test_a_test_part_without_labels_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*data(tmp_path / "d", unlabelled), "mentors=[{name: maps, model: heatmap_tiny}]"]
    made = run(tmp_path, *words)
    assert made["entries"][0]["test_last"] is None
    assert made["mentors"][0]["accuracy"] is None
    assert made["mentors"][0]["val_accuracy"] is not None
    assert any("have no score" in note for note in made["data"]["notes"])
    capsys.readouterr()
    assert main(["run", str(tmp_path / "recipe.yaml"), *WORDS, *words, f"cache={tmp_path / 'cache'}", "--resume",
                 "--out", str(tmp_path / "run")]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "nan" not in (said.out + said.err).lower()
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out.replace(str(tmp_path), "")  # which may be pytest's hundredth folder
    assert "AP_gtbox – on" in shown
    assert "-100" not in shown
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] is None


def test_a_metric_that_nobody_allows_ends_before_anything_is_trained(tmp_path: Path, capsys: Any) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["keypoints"][33:39] = [0] * 6

    words = [*data(tmp_path / "d", change), "data.options={metric: PCK@0.2}", "mentors=[{model: heatmap_tiny}]"]
    for more in ([], ["--dry-run"]):
        run(tmp_path, *words, *more, code=2)
        said = capsys.readouterr().err
        assert said.count("data.options.metric: 'PCK@0.2' cannot be computed on the test part") == 1
        assert not list(tmp_path.rglob("student*.safetensors"))
    run(tmp_path, *words, "data.options={metric: PCKK}", code=2)
    assert capsys.readouterr().err.count("there is no 'PCKK'") == 1


def test_a_mentor_is_scored_on_the_joints_that_it_has(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(resolve_pose("simcc_tiny", 16, (32, 32)).state_dict(), tmp_path / "mpii.safetensors")
    mentor = f"mentors=[{{name: mpii, model: simcc_tiny, checkpoint: {tmp_path / 'mpii.safetensors'}, skeleton: mpii}}]"
    made = run(tmp_path, *data(tmp_path / "d", lambda entry: None), mentor, "data.options={metric: PCK@0.2_box}")
    record = made["mentors"][0]
    assert record["accuracy"] is not None
    assert record["per_class"][:5] == [None] * 5  # COCO's nose, eyes and ears
    assert None not in record["per_class"][5:]
