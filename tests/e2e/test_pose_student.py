"""A pose student from a run to its uses: what the run writes is what the verbs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classroomkd.cli.app import main
from classroomkd.data.skeleton import COCO

RECIPE = """\
task: {name: pose, flip_test: true}
data: {source: puppets, size: [48, 32], options: {train: 40, test: 20, padding: 1.4, flip: 0.0}}
student: simcc_tiny
method: none
train: {epochs: 1, batch_size: 8}
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one pose student."""
    folder = tmp_path_factory.mktemp("pose")
    (folder / "pose.yaml").write_text(RECIPE)
    words = ["run", str(folder / "pose.yaml"), "--out", str(folder / "run"), f"cache={folder / 'cache'}", "--quiet"]
    assert main(words) == 0
    return folder / "run"


def _said(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_agrees_with_the_summary(taught: Path, capsys: Any) -> None:
    capsys.readouterr()
    found = _said(capsys, "evaluate", taught, "--json")
    entry = json.loads((taught / "summary.json").read_text())["entries"][0]
    assert found["flip_test"] is True  # as the recipe says
    assert found["accuracy"] == pytest.approx(entry["test_last"])
    assert found["metrics"] == pytest.approx(entry["test_metrics"])
    assert found["samples"] == 20
    other = _said(capsys, "evaluate", taught, "--no-flip-test", "--part", "val", "--json")
    assert (other["flip_test"], other["samples"], other["metric"]) == (False, 4, "AP_gtbox")


def test_a_runs_student_knows_how_it_was_cropped(taught: Path) -> None:
    from classroomkd.export.student import find_student, load_student

    student = load_student(find_student(taught))
    assert student.pose is not None
    assert student.pose.skeleton == COCO
    assert student.pose.padding == 1.4
    assert student.shape == (3, 48, 32)


def test_predict_and_export(taught: Path, tmp_path: Path, capsys: Any) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.linear_gradient("L").resize((60, 90)).save(tmp_path / "images" / "grey.png")
    assert main(["predict", str(taught), str(tmp_path / "images"), "--out", str(tmp_path / "a.json")]) == 0
    target = tmp_path / "ship" / "student.safetensors"
    assert main(["export", str(taught), str(target)]) == 0
    capsys.readouterr()
    assert "17 joints of one person" in target.with_suffix(".md").read_text()
    assert main(["predict", str(target), str(tmp_path / "images"), "--out", str(tmp_path / "b.json")]) == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert [entry["file_name"] for entry in first] == ["grey.png"]
    assert first == second
