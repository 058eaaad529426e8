"""The probe that chooses a student's layout: what it chooses from which times, and that it leaves no trace."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import models
from classroomkd.train import memory_format as student_layout
from classroomkd.train.memory_format import choose_layout, settle
from classroomkd.train.runtime import Runtime

PIXELS = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def loss(said: Tensor) -> Tensor:
    return F.cross_entropy(said.float(), torch.zeros(len(said), dtype=torch.int64))


def test_it_measures_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(models.create("convnet8", 10), nn.Dropout(0.5))
    loss(student(PIXELS)).backward()
    student.eval()
    state = copy.deepcopy(student.state_dict())
    grads = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    found = choose_layout(student, PIXELS, loss, bf16=True, seconds=60.0)  # nine rounds, however slow
    assert set(found["ratios"]) == {"again", "channels_last", "bf16"}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert all(torch.equal(value, state[key]) for key, value in student.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(student.parameters(), grads, strict=True) if p.grad is not None)
    assert torch.equal(random, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert not student.training
    assert all(p.is_contiguous() for p in student.parameters())


@pytest.mark.parametrize(
    ("again", "last", "half", "expected"),
    [
        (1.0, 0.8, None, (True, "fp32")),
        (1.0, 0.99, None, (False, "fp32")),
        (1.0, 1.2, None, (False, "fp32")),
        (1.15, 0.9, None, (False, "fp32")),  # what is the same differs by more
        (1.0, 0.8, 0.46, (True, "bf16")),
        (1.0, 0.58, 1.07, (True, "fp32")),
        (1.0, 0.8, 0.75, (True, "fp32")),  # not worth other numerics
        (1.0, 1.1, 0.6, (True, "bf16")),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch, again: float, last: float, half: float | None, expected: tuple[bool, str]
) -> None:
    took = {"nchw": 1.0, "again": again, "channels_last": last, "bf16": half or 0.0}

    def measure(steps: dict[str, object], device: object, seconds: float) -> list[dict[str, float]]:
        return [{name: scale * took[name] for name in steps} for scale in (1.0, 3.0, 2.0)]

    monkeypatch.setattr(student_layout, "_measure", measure)
    found = choose_layout(models.create("convnet8", 10), PIXELS, loss, bf16=half is not None)
    assert (found["channels_last"], found["precision"]) == expected
    assert found["ratios"]["channels_last"] == last


def test_too_little_time_and_other_inputs() -> None:
    student = models.create("convnet8", 10)
    assert choose_layout(student, PIXELS, loss, seconds=0.0) == {
        "channels_last": True,
        "precision": "fp32",
        "ratios": {},
    }
    assert choose_layout(nn.Linear(3, 4), torch.zeros(4, 3), loss)["channels_last"] is False


def test_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: set[int] = set()

    def counted(said: Tensor) -> Tensor:
        sizes.add(len(said))
        return loss(said)

    choose_layout(models.create("convnet8", 10), PIXELS, counted, seconds=0.0)
    assert sizes == {8}


@pytest.mark.parametrize("last", [True, False])
def test_a_run_that_goes_on_keeps_its_layout(last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def measured(*_: Any, **__: Any) -> dict[str, Any]:
        asked.append(None)
        return {"channels_last": last if len(asked) == 1 else not last, "precision": "fp32", "ratios": {}}

    monkeypatch.setattr(student_layout, "choose_layout", measured)
    run, student = Runtime("cpu"), models.create("convnet4", 10)
    assert settle(student, PIXELS, run, tmp_path, resume=False) is last
    assert settle(student, PIXELS, run, tmp_path, resume=True) is last
    assert len(asked) == 1
    assert settle(student, PIXELS, run, tmp_path, resume=False) is not last  # from the start: measured again
    assert settle(student, PIXELS, run, tmp_path / "nothing", resume=True) is not last
