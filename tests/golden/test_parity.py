"""Our pure functions against the authors' own numbers (README.md beside this file says where they come from)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from classroomkd import functional

HERE = Path(__file__).parent


def cases(name: str) -> list[dict[str, np.ndarray]]:
    data = np.load(HERE / f"{name}.npz")
    found: list[dict[str, np.ndarray]] = [{} for _ in range(int(data["n"]))]
    for key in data.files:
        if "/" in key:
            index, _, rest = key.partition("/")
            found[int(index)][rest] = data[key]
    return found


def ours(case: dict[str, np.ndarray], rule: str, dtype: torch.dtype) -> tuple[float, np.ndarray]:
    student = torch.tensor(case["student"], dtype=dtype, requires_grad=True)
    terms = functional.classroom(
        student,
        torch.tensor(case["mentors"], dtype=dtype),
        torch.tensor(case["target"]),
        tau=float(case["tau"]),
        rule=rule,
    )
    terms.loss.backward()
    assert student.grad is not None
    assert terms.weight.shape == terms.temperature.shape == terms.active.shape == case["mentors"].shape[:2]
    return terms.loss.item(), student.grad.numpy()


@pytest.mark.parametrize(("name", "rule"), [("classroomkd_reference", "batch"), ("classroomkd_rank_reference", "rank")])
def test_classroom_is_the_released_rule(name: str, rule: str) -> None:
    found = cases(name)
    assert found
    for case in found:
        loss, grad = ours(case, rule, torch.float64)
        assert loss == pytest.approx(float(case["loss"]), rel=1e-9)
        np.testing.assert_allclose(grad, case["grad"], rtol=1e-6, atol=1e-12)


def test_classroom_in_float32() -> None:
    for case in cases("classroomkd_rank_reference"):
        loss, grad = ours(case, "rank", torch.float32)
        assert loss == pytest.approx(float(case["loss"]), rel=1e-4)
        np.testing.assert_allclose(grad, case["grad"], rtol=1e-4, atol=1e-4 * np.abs(case["grad"]).max())


def test_kd() -> None:
    case = next(c for c in cases("baselines_reference") if str(c["kind"]) == "kd")
    student = torch.tensor(case["student"], requires_grad=True)
    loss = functional.kd(student, torch.tensor(case["teacher"]), float(case["param/temperature"])).mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-9)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), case["grad/student"], rtol=1e-6, atol=1e-12)


def test_average() -> None:
    found = [c for c in cases("multi_teacher_reference") if str(c["kind"]) == "AVERAGE_LOSS"]
    assert found
    for case in found:
        student = torch.tensor(case["student"], requires_grad=True)
        loss = functional.average(student, torch.tensor(case["mentors"]), float(case["T"]))
        loss.backward()
        assert loss.item() == pytest.approx(float(case["loss4"]), abs=1e-4)
        assert student.grad is not None
        np.testing.assert_allclose(student.grad.numpy(), case["grad"], rtol=1e-4, atol=1e-7)
