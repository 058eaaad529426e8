"""``benchmarks/record.py compare`` on small records made by hand."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "record.py"


@pytest.fixture(scope="module")
def record() -> Any:
    spec = importlib.util.spec_from_file_location("record_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _case(record: Any) -> Any:
    """Two arms; the state dict's order is not that of the names."""
    lines = [
        {"kind": "train", "step": s, "loss": 0.1 * s, "terms": {"supervised": 0.5, "distilled": s}} for s in (1, 2)
    ]
    arms = ("kd", "at")
    return record.Case(
        files=[f"{arm}/seed0/{name}" for arm in arms for name in ("metrics.jsonl", "student.safetensors")],
        documents={f"{arm}/seed0/metrics.jsonl": copy.deepcopy(lines) for arm in arms},
        tensors={
            f"{arm}/seed0/student.safetensors": {
                "stem": torch.tensor([1.0, float("nan"), 3.0]),
                "body": torch.ones(2, 2),
            }
            for arm in arms
        },
    )


def _compared(record: Any, tmp_path: Path, new: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Both records written, read and compared by the command."""
    record.save(tmp_path / "old.safetensors", {"smoke": _case(record)})
    record.save(tmp_path / "new.safetensors", {"smoke": new})
    code = record.main(["compare", str(tmp_path / "old.safetensors"), str(tmp_path / "new.safetensors")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.safetensors", "old.safetensors"]
    return code, capsys.readouterr().out


def test_equal_records(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compared(record, tmp_path, _case(record), capsys) == (0, "equal: 1 cases, 2 students, 4 tensors\n")


def test_one_element(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first tensor is the first of the state dict; NaN is equal to itself."""
    new = _case(record)
    new.tensors["at/seed0/student.safetensors"]["stem"][2] = 3.25
    new.tensors["at/seed0/student.safetensors"]["body"] += 1
    code, said = _compared(record, tmp_path, new, capsys)
    assert code == 1
    first = "at/seed0/student.safetensors, stem: 1 of 3 elements differ, by at most 0.25; 2 of 2 tensors of this file"
    assert f"smoke: first tensor: {first}\n" in said
    assert "tensor files that differ: 1 of 2: at/seed0\n" in said
    assert said.endswith("1 of 1 cases differ (1 cases, 2 students, 4 tensors)\n")


def test_the_sign_of_zero_counts(record: Any) -> None:
    assert record.tensor_difference(torch.zeros(()), -torch.zeros(())) == "1 of 1 elements differ, by at most 0"


def test_missing_and_new_files(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = _case(record)
    new.files.remove("kd/seed0/student.safetensors")
    new.files.append("SHA256SUMS")
    del new.tensors["kd/seed0/student.safetensors"]
    code, said = _compared(record, tmp_path, new, capsys)
    assert code == 1
    assert "smoke: files missing: kd/seed0/student.safetensors\nsmoke: files new: SHA256SUMS\n" in said
    assert "first tensor: kd/seed0/student.safetensors, stem: missing" in said


def test_a_changed_metric(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = _case(record)
    new.documents["kd/seed0/metrics.jsonl"][1]["loss"] = 0.1 * 2 + 1e-16
    new.documents["at/seed0/metrics.jsonl"][1]["terms"]["distilled"] = 2.0
    code, said = _compared(record, tmp_path, new, capsys)
    assert code == 1
    assert "first value: arm kd, seed 0, metrics.jsonl line 2 (train, step 2): loss: 0.2 -> 0.2000000000000001" in said
    assert "documents that differ: 2 of 2: kd/seed0, at/seed0\n" in said


def test_a_renamed_key(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = _case(record)
    for lines in new.documents.values():
        for line in lines:
            line["terms"]["imitation"] = line["terms"].pop("distilled")
            line["view"] = 7
    code, said = _compared(record, tmp_path, new, capsys)
    assert code == 1
    assert "smoke: metrics.jsonl: key terms.distilled is now terms.imitation (same values)\n" in said
    assert "smoke: metrics.jsonl: key view is new\n" in said
    assert "first value" not in said


def test_what_is_measured_is_left_out(record: Any) -> None:
    line = {"loss": 1, "seconds": 2, "x_floor": 3, "cost": {"step_ms": 4, "of": ["/tmp/a/x"]}}
    assert record.cleaned(line, Path("/tmp/a")) == {"loss": 1, "cost": {"of": ["WORK/x"]}}


def test_the_order_of_the_state_dict_is_found_in_a_checkpoint(record: Any) -> None:
    inside = {"step": 3, "parts": [{"net.stem": 0, "net.body": 1, "head": 2}]}
    assert record.state_order(inside, {"body": 1, "stem": 0}) == ["stem", "body"]
    assert record.state_order(inside, {"body": 1, "tail": 0}) is None
