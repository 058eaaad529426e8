"""``inspect`` of files and runs, and ``bank info`` of a run: what is there, without knowing where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from classroomkd.cli.app import main

Capture = pytest.CaptureFixture[str]


def as_json(capsys: Capture, *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_inspect_tells_of_a_student(finished: Path, capsys: Capture) -> None:
    seed = finished / "none" / "seed0"
    for place in (seed, seed / "student.safetensors"):
        found = as_json(capsys, "inspect", str(place))
        assert (found["kind"], found["model"], found["method"]) == ("student", "convnet8", "none")
        assert found["run"] == str(finished.resolve())
        assert len(found["classes"]) == 10
        assert found["network"]["parameters"] == 8_754
        assert found["shape"] == [3, 32, 32]
    assert main(["inspect", str(seed)]) == 0
    said = capsys.readouterr().out
    assert "classes: stand, t_pose" in said
    assert "8,754 parameters" in said


def test_inspect_tells_of_anybodys_weights(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    state = {f"module.layer{i}.weight": torch.zeros(4, i + 1) for i in range(30)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pth")
    for name, first in (("a.safetensors", "module.layer0.weight"), ("a.pth", "state_dict.module.layer0.weight")):
        found = as_json(capsys, "inspect", str(tmp_path / name))
        assert found["kind"] == "weights"
        assert {"name": first, "shape": [4, 1]} in found["tensors"]
        assert found["numbers"] == 4 * sum(range(1, 31))
        assert main(["inspect", str(tmp_path / name)]) == 0
        assert "14 tensors between them not shown" in capsys.readouterr().out


def test_inspect_tells_of_a_graph(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "student.onnx"
    assert main(["export", str(finished / "none" / "seed0"), str(file)]) == 0
    found = as_json(capsys, "inspect", str(file))
    assert found["kind"] == "onnx"
    assert found["inputs"][0]["shape"][1:] == [3, 32, 32]
    assert "logits" in [port["name"] for port in found["outputs"]]


def test_what_inspect_cannot_look_into_is_one_sentence(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    (tmp_path / "bad.onnx").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    student = str(finished / "none" / "seed0")
    for words, part in (
        ([tmp_path / "gone.pth"], "there is no such file"),
        ([tmp_path / "runs" / "gone"], "there is no such file"),
        ([tmp_path / "bad.safetensors"], "damaged"),
        ([tmp_path / "bad.onnx"], "onnx"),
        ([tmp_path / "notes.txt"], "is not looked into"),
        ([tmp_path / "empty"], "holds no student.safetensors, and is no folder of a run"),
        ([student, "--classes", "3"], "--classes: a file says that itself"),
    ):
        said = error(capsys, "inspect", *map(str, words))
        assert part in said, words
        assert "Traceback" not in said


def test_the_bank_of_a_run_is_found(finished: Path, quick: list[str], tmp_path: Path, capsys: Capture) -> None:
    cache = Path(quick[-1].partition("=")[2])
    rows = as_json(capsys, "bank", "info", str(finished))
    assert {row["key"]["mentor"] for row in rows} == {"broad", "slim", "arms"}
    assert all(Path(row["folder"]).parent == cache / "bank" for row in rows)
    assert main(["bank", "verify", str(finished)]) == 0
    assert "0 damaged" in capsys.readouterr().out
    assert str(cache) in error(
        capsys, "bank", "gc", str(finished)
    )  # what others use, too, is not cleared by a run's name
    assert "there is no such folder" in error(capsys, "bank", "info", str(tmp_path / "nothing"))


def test_a_run_says_why_it_has_no_bank(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    text = (finished / "recipe.yaml").read_text()
    for name, recipe, part in (
        ("off", text.replace("bank: auto", "bank: off"), "bank: off"),
        ("moved", "\n".join(line for line in text.splitlines() if not line.startswith("cache:")), "was the run moved"),
    ):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "recipe.yaml").write_text(recipe)
        assert part in error(capsys, "bank", "info", str(tmp_path / name / "run"))


def test_a_recipe_of_ones_own_makes_no_run_of_its_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """What ``init`` writes lies beside what ``export`` writes."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", "smoke"]) == 0
    assert main(["export", str(finished / "none" / "seed0"), "ship/student.safetensors"]) == 0
    found = as_json(capsys, "inspect", "ship/student.safetensors")
    assert found["run"] is None
    assert main(["evaluate", "ship/student.safetensors"]) == 2
    assert "lies in no run folder" in capsys.readouterr().err


def test_inspect_tells_of_a_runs_students(finished: Path, capsys: Capture) -> None:
    found = as_json(capsys, "inspect", str(finished))
    assert [(row["arm"], row["seed"]) for row in found["students"]] == [
        (arm, seed) for arm in ("none", "classroomkd") for seed in (0, 1)
    ]
    assert found["kind"] == "student"
    assert Path(found["file"]).is_relative_to(finished)
    assert main(["inspect", str(finished)]) == 0
    told = capsys.readouterr()
    assert "none seed 0: accuracy " in told.out
    assert "the best on validation" in told.err
