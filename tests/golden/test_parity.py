"""What training runs against the authors' own numbers (README.md beside this file says where they come from)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from by_method import classroom, distilled, feature_loss
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
    terms = classroom(
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


@pytest.mark.parametrize(("name", "rule"), [("classroomkd_reference", "batch"), ("classroomkd_rank_reference", "rank")])
def test_the_weighting_beside_kl_is_the_released_rule(name: str, rule: str) -> None:
    for case in cases(name):
        student = torch.tensor(case["student"], requires_grad=True)
        mentors, target = torch.tensor(case["mentors"]), torch.tensor(case["target"])
        weighting = {"name": "classroomkd", "rule": rule, "tau": float(case["tau"])}
        loss = distilled("weighted", student, mentors, target, weighting=weighting)
        loss = loss + classroom(student, mentors, target, rule=rule).supervised
        (grad,) = torch.autograd.grad(loss, student)
        assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-9)
        np.testing.assert_allclose(grad.numpy(), case["grad"], rtol=1e-6, atol=1e-12)


def test_classroom_in_float32() -> None:
    for case in cases("classroomkd_rank_reference"):
        loss, grad = ours(case, "rank", torch.float32)
        assert loss == pytest.approx(float(case["loss"]), rel=1e-4)
        np.testing.assert_allclose(grad, case["grad"], rtol=1e-4, atol=1e-4 * np.abs(case["grad"]).max())


def test_kd() -> None:
    case = next(c for c in cases("baselines_reference") if str(c["kind"]) == "kd")
    student = torch.tensor(case["student"], requires_grad=True)
    teacher, temperature = torch.tensor(case["teacher"]), float(case["param/temperature"])
    for loss in (
        distilled("kd", student, teacher, temperature=temperature),
        functional.kd(student, teacher, temperature).mean(),
    ):
        (grad,) = torch.autograd.grad(loss, student)
        assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-9)
        np.testing.assert_allclose(grad.numpy(), case["grad/student"], rtol=1e-6, atol=1e-12)


def test_average() -> None:
    found = [c for c in cases("multi_teacher_reference") if str(c["kind"]) == "AVERAGE_LOSS"]
    assert found
    for case in found:
        student = torch.tensor(case["student"], requires_grad=True)
        loss = distilled("average", student, torch.tensor(case["mentors"]), temperature=float(case["T"]))
        loss.backward()
        assert loss.item() == pytest.approx(float(case["loss4"]), abs=1e-4)
        assert student.grad is not None
        np.testing.assert_allclose(student.grad.numpy(), case["grad"], rtol=1e-4, atol=1e-7)


MENTOR_RULES: dict[str, tuple[str, dict[str, float]]] = {  # the term on logits alone
    "EBKD": ("ebkd", {}),
    "CAMKD": ("camkd", {"feature_weight": 0.0}),
    "AEKD": ("aekd", {}),
}


def taught(case: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[float, np.ndarray]:
    student = torch.tensor(case["student"], dtype=dtype, requires_grad=True)
    mentors, target = torch.tensor(case["mentors"], dtype=dtype), torch.tensor(case["target"])
    name, given = MENTOR_RULES[str(case["kind"])]
    loss = distilled(name, student, mentors, target, temperature=float(case["T"]), rule="reference", **given)
    loss.backward()
    assert student.grad is not None
    return loss.item(), student.grad.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["EBKD", "CAMKD"])
def test_weighted_mentors(kind: str, dtype: torch.dtype) -> None:
    found = [c for c in cases("multi_teacher_reference") if str(c["kind"]) == kind]
    assert found
    for case in found:
        loss, grad = taught(case, dtype)
        assert loss == pytest.approx(float(case["loss4"]), abs=6e-5)  # printed to four decimals
        np.testing.assert_allclose(grad, case["grad"], rtol=1e-4, atol=1e-4 * np.abs(case["grad"]).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aekd_is_at_least_as_good(dtype: torch.dtype) -> None:
    """The released solver is iterative: close to it, and never a longer gradient, which is what both minimise."""
    found = [c for c in cases("multi_teacher_reference") if str(c["kind"]) == "AEKD"]
    assert found
    for case in found:
        loss, grad = taught(case, dtype)
        assert loss == pytest.approx(float(case["loss4"]), abs=2e-2)
        np.testing.assert_allclose(grad, case["grad"], atol=2e-2 * np.abs(case["grad"]).max())
        assert np.linalg.norm(grad.sum(0)) <= np.linalg.norm(case["grad"].sum(0)) * (1 + 1e-6)


def baseline(case: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[float, np.ndarray]:
    student = torch.tensor(case["student"], dtype=dtype, requires_grad=True)
    teacher = torch.tensor(case["teacher"], dtype=dtype)
    p = {key.partition("/")[2]: float(value) for key, value in case.items() if key.startswith("param/")}
    rules: dict[str, Callable[[], torch.Tensor]] = {
        "dkd": lambda: distilled("dkd", student, teacher, torch.tensor(case["target"]), **p),
        "dist": lambda: distilled("dist", student, teacher, beta=p["beta"], gamma=p["gamma"], temperature=p["tau"]),
        "rkd": lambda: feature_loss("rkd", student, teacher, distance=p["w_d"], angle=p["w_a"]),
        "at": lambda: feature_loss("at", student, teacher, weight=1.0, p=p["p"]),
    }
    loss = rules[str(case["kind"])]()
    loss.backward()
    assert student.grad is not None
    return loss.item(), student.grad.numpy()


@pytest.mark.parametrize("kind", ["dkd", "dist", "rkd", "at"])
def test_baselines(kind: str) -> None:
    found = [c for c in cases("baselines_reference") if str(c["kind"]) == kind]
    assert found
    for case in found:
        loss, grad = baseline(case, torch.float64)
        assert loss == pytest.approx(float(case["loss"]), rel=1e-9)
        np.testing.assert_allclose(grad, case["grad/student"], rtol=1e-6, atol=1e-12)
        loss, grad = baseline(case, torch.float32)
        assert loss == pytest.approx(float(case["loss"]), rel=1e-4)
        np.testing.assert_allclose(grad, case["grad/student"], rtol=1e-4, atol=1e-4 * np.abs(grad).max())
