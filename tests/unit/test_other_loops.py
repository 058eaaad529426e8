"""What the wrappers of other training loops do to a classroom and to its lessons."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import Calibration, Lesson

METHODS = ("none", "classroomkd", "camkd", "fitnet", "crd")


def small(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4),
    )  # fmt: skip


IDS, LABELS = torch.arange(50, 62), torch.arange(12) % 4


def room(method: str) -> ck.Classroom:
    register = (IDS, LABELS) if method == "crd" else None
    return ck.Classroom(
        small(4, 0), [small(6, 1), small(5, 2)], method, image_shape=(3, 8, 8), register=register,
        taps={"@stage:-1": "4"},
    )  # fmt: skip


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(6, 3, 8, 8), LABELS[:6], IDS[:6]


def converted(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of what a module returned with every tensor changed, as Fabric and Lightning make it."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        result = copy.deepcopy(value, {id(held): held for held in fields.values()})
        for name, held in fields.items():
            setattr(result, name, converted(held, change))
        return result
    if isinstance(value, Mapping):
        return type(value)({key: converted(held, change) for key, held in value.items()})  # type: ignore[call-arg]
    if isinstance(value, tuple | list):
        return type(value)(converted(held, change) for held in value)
    return value


def replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same as FSDP does it: by ``dataclasses.replace``."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: replaced(getattr(value, name), change) for name in names})
    if isinstance(value, Mapping):
        return {key: replaced(held, change) for key, held in value.items()}
    return type(value)(replaced(held, change) for held in value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("convert", [converted, replaced])
@pytest.mark.parametrize("method", METHODS)
def test_a_lesson_whose_tensors_are_converted_teaches_the_same(method: str, convert: Any) -> None:
    x, y, ids = batch()
    plain, wrapped = room(method), room(method)
    wrapped.load_state_dict(plain.state_dict())
    for classroom in (plain, wrapped):
        classroom.calibration = Calibration(torch.ones(2), torch.ones(2, 4))
    expected, lesson = plain(x, y, ids=ids), wrapped(x, y, ids=ids)
    seen = list[Tensor]()

    def change(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor * 1 if tensor.is_floating_point() else tensor

    changed: Lesson = convert(lesson, change)
    assert any(tensor is lesson.loss for tensor in seen)  # hooks and casts reach what is called backward on
    assert changed.task is wrapped.task
    expected.loss.backward()
    changed.loss.backward()
    assert torch.equal(changed.loss, expected.loss)
    for (name, own), other in zip(plain.named_parameters(), wrapped.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        assert own.grad is None or torch.equal(own.grad, other.grad), name  # type: ignore[arg-type]


def test_a_copied_lesson_shares_the_graph() -> None:
    x, y, ids = batch()
    classroom = room("camkd")
    lesson = classroom(x, y, ids=ids)
    other = copy.deepcopy({"lesson": [lesson]})["lesson"][0]
    assert other is not lesson
    assert other.loss is lesson.loss
    assert other.heads == lesson.heads  # the classroom behind it is not copied
    untaught = copy.deepcopy(classroom.collect(x, y, ids=ids))
    assert untaught.conclude(classroom.method(untaught)).loss.isfinite()


def test_autocast_around_forward_and_a_cast_behind_it() -> None:
    """Accelerate replaces ``forward`` by one under autocast, whose outputs it makes float32."""
    x, y, ids = batch()
    for method in METHODS:
        classroom = room(method)
        plain = classroom.forward

        def forward(*args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                said = _plain(*args, **kwargs)
            return converted(said, lambda t: t.float() if t.dtype == torch.bfloat16 else t)

        classroom.forward = forward  # type: ignore[method-assign]
        lesson = classroom(x, y, ids=ids)
        assert lesson.loss.dtype == torch.float32
        lesson.loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in classroom.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("method", METHODS)
def test_fabric(method: str, precision: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric_module = pytest.importorskip("lightning_fabric")
    x, y, ids = batch()
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1, precision=precision)
    classroom = room(method)
    before = [copy.deepcopy(mentor.module.state_dict()) for mentor in classroom.mentors]
    wrapped, optimizer = fabric.setup(classroom, torch.optim.SGD(classroom.parameters(), lr=0.01, momentum=0.9))
    wrapped.train()
    for _ in range(2):
        lesson = wrapped(x, y, ids=ids)
        fabric.backward(lesson.loss)
        optimizer.step()
        optimizer.zero_grad()
    assert lesson.loss.isfinite()
    assert (lesson.weight is None) == (method == "none")
    for mentor, was in zip(classroom.mentors, before, strict=True):
        assert not any(layer.training for layer in mentor.modules())
        for name, value in mentor.module.state_dict().items():
            assert torch.equal(value, was[name].to(value.dtype)), name
    if precision == "32-true":
        plain = room(method)
        assert torch.equal(wrapped.module(x, y, ids=ids).loss, _taught(plain, x, y, ids))


def _taught(classroom: ck.Classroom, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    """The loss after the two steps of :func:`test_fabric`, without Fabric."""
    optimizer = torch.optim.SGD(classroom.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        classroom(x, y, ids=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return classroom(x, y, ids=ids).loss
