"""The classroom in loops that others wrote, with networks in any state."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import classroomkd as ck
from classroomkd.classroom import Calibration, Lesson, PlainContext
from classroomkd.errors import UserError


def net(classes: int = 3, name: str = "convnet4") -> nn.Module:
    module: nn.Module = ck.models.create(name, num_classes=classes)
    return module


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 32, 32), torch.arange(count) % 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("method", [{"name": "classroomkd"}, {"name": "at"}, {"name": "camkd"}])
def test_fabric_wraps_a_classroom(precision: Any, method: dict[str, Any]) -> None:
    from lightning_fabric import Fabric

    student = net()
    made = ck.methods.create(method["name"])
    classroom = ck.Classroom(student, [net(name="convnet8"), net()], made, image_shape=(3, 32, 32))
    classroom.calibration = Calibration(torch.ones(2), torch.ones(2, 3))
    before = [value.clone() for value in student.parameters()]
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    room, optimizer = fabric.setup(classroom, torch.optim.SGD(classroom.parameters(), lr=0.1))
    for _ in range(2):
        lesson = room(*batch())
        assert isinstance(lesson, Lesson)
        fabric.backward(lesson.loss)
        optimizer.step()
        optimizer.zero_grad()
    assert lesson.loss.isfinite()
    assert lesson.weight is None or lesson.weight.shape[:2] == (2, 4)
    assert any(not torch.equal(old, new.to(old.dtype)) for old, new in zip(before, student.parameters(), strict=True))


def test_a_copied_lesson_is_the_lesson() -> None:
    """What wrappers do to whatever a module returns."""
    lesson = ck.Classroom(net(), [net()], "classroomkd")(*batch())
    again = copy.deepcopy(lesson)
    assert again.loss is lesson.loss
    assert again.terms.keys() == lesson.terms.keys()
    copied = copy.deepcopy([lesson, {"lesson": lesson}])
    copied[1]["lesson"].loss.backward()  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        lambda mentor, holder: mentor.train(),
        lambda mentor, holder: holder.train(),
        lambda mentor, holder: mentor.apply(lambda layer: setattr(layer, "training", True)),
        lambda mentor, holder: [layer.train() for layer in mentor.modules() if isinstance(layer, nn.BatchNorm2d)],
        lambda mentor, holder: (mentor.train(), mentor.requires_grad_(True)),
    ],
    ids=["itself", "who holds it", "apply", "its layers", "with gradients"],
)
@pytest.mark.parametrize("method", ["classroomkd", "camkd"])
def test_mentors_stay_as_they_were(change: Callable[[nn.Module, nn.Module], object], method: str) -> None:
    mentor, student = net(name="convnet8"), net()
    holder = nn.ModuleList([mentor, student])
    classroom = ck.Classroom(student, [mentor], method, image_shape=(3, 32, 32))
    wanted = classroom(*batch())
    before = copy.deepcopy(mentor.state_dict())
    for _ in range(2):
        change(mentor, holder)
        classroom(*batch()).loss.backward()
    change(mentor, holder)
    student.train()
    assert wanted.mentors is not None
    assert all(torch.equal(value, before[name]) for name, value in mentor.state_dict().items())
    assert all(value.grad is None for value in mentor.parameters())


class Two(nn.Module):
    """A stem and a head."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem, self.head = stem, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.stem(x).mean((2, 3)))
        return answer


@pytest.mark.parametrize("how", ["module", "parameter", "view", "buffer"])
def test_what_student_and_mentor_share_is_named(how: str) -> None:
    one, other = Two(nn.Conv2d(3, 8, 3)), Two(nn.Conv2d(3, 8, 3))
    if how == "module":
        other.stem = one.stem
    elif how == "parameter":
        other.stem.weight = one.stem.weight
    elif how == "view":
        other.stem.weight = nn.Parameter(one.stem.weight.detach()[:])
    else:
        for module in (one, other):
            module.register_buffer("kept", torch.zeros(3) if module is one else one.get_buffer("kept"))
    with pytest.raises(UserError, match=r"share '(stem|kept)"):
        ck.Classroom(one, [other], "kd")
    assert all(value.requires_grad for value in one.parameters())
    ck.Classroom(one, [copy.deepcopy(other)], "kd")(*batch()).loss.backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_mentors_of_another_precision(dtype: torch.dtype) -> None:
    mentor = net(name="convnet8")
    plain = ck.Classroom(net(), [copy.deepcopy(mentor)], "kd")
    other = ck.Classroom(copy.deepcopy(plain.student), [mentor.to(dtype)], "kd")
    x, y = batch()
    want, got = plain(x, y), other(x, y)
    assert got.mentors is not None
    assert want.mentors is not None
    assert got.mentors.prediction.dtype == torch.float32
    torch.testing.assert_close(got.mentors.prediction, want.mentors.prediction, rtol=0.1, atol=0.1)
    got.loss.backward()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16, torch.int64])
def test_labels_of_any_whole_number(dtype: torch.dtype) -> None:
    x, y = batch()
    classroom = ck.Classroom(net(), [net()], "classroomkd")
    assert torch.equal(classroom(x, y.to(dtype)).loss, classroom(x, y).loss)


def test_inputs_of_another_precision() -> None:
    x, y = batch()
    classroom = ck.Classroom(net(), [net()], "classroomkd")
    assert torch.equal(classroom(x.double(), y).loss, classroom(x, y).loss)
    with pytest.raises(UserError, match="inputs are uint8; give floating point"):
        classroom((x * 255).to(torch.uint8), y)
    with pytest.raises(UserError, match="the batch is empty"):
        classroom(x[:0], y[:0])
    with pytest.raises(UserError, match=r"the target is a list; give a tensor"):
        classroom(x, y.tolist())
    with pytest.raises(UserError, match=r"the inputs are a ndarray; give a tensor"):
        classroom(x.numpy(), y)
    with pytest.raises(UserError, match=r"targets must be .B,. integer classes"):
        ck.Classroom(net(), [net()], "kd")(x, torch.nn.functional.one_hot(y, 3).float())


def test_layers_without_a_shape() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(UserError, match="mentor 'Sequential' has layers without a shape yet"):
        ck.Classroom(net(), [lazy], "kd")
    with pytest.raises(UserError, match="the student has layers without a shape yet"):
        ck.Classroom(lazy, [net()], "kd")


def test_traced_and_exported_mentors() -> None:
    mentor, (x, y) = net(name="convnet8").eval(), batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(mentor, x)
    count = torch.export.Dim("count", min=2, max=64)
    exported = torch.export.export(mentor, (x,), dynamic_shapes=({0: count},)).module()
    classroom = ck.Classroom(net(), [mentor, traced, exported], "average")
    lesson = classroom(x, y)
    assert lesson.mentors is not None
    for answer in lesson.mentors.prediction[1:]:
        torch.testing.assert_close(answer, lesson.mentors.prediction[0], rtol=1e-4, atol=1e-5)
    lesson.loss.backward()


def test_a_frozen_student_is_named() -> None:
    classroom = ck.Classroom(net().requires_grad_(False), [net()], "kd")
    with pytest.raises(UserError, match="no parameter of the student can be trained"):
        classroom(*batch())
    with torch.no_grad():
        classroom(*batch())


def test_probabilities_are_no_logits() -> None:
    sure = nn.Sequential(net(), nn.Softmax(-1))
    classroom = ck.Classroom(net(), [net(), ck.Mentor(sure, "sure")], "average")
    with pytest.warns(UserWarning, match="mentor 'sure' answers probabilities"):
        classroom(*batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classroom(*batch())  # once
        ck.Classroom(net(), [nn.Sequential(net(), nn.LogSoftmax(-1))], "average")(*batch())  # they are logits


def test_statistics_of_another_number_of_channels() -> None:
    with pytest.raises(UserError, match="mentor 'a': mean has 2 numbers, std 3"):
        ck.Mentor(net(), "a", mean=(0.5, 0.5), std=(0.2, 0.2, 0.2))
    classroom = ck.Classroom(
        net(), [ck.Mentor(net(), "a", mean=(0.5, 0.5), std=(0.2, 0.2))], "kd", mean=[0.5] * 3, std=[0.2] * 3
    )
    with pytest.raises(UserError, match="mentor 'a': its mean and std have 2 numbers, images 3 channels"):
        classroom(*batch())


def test_names_of_classes_need_data_that_have_them() -> None:
    for classes in (["cat", "dog", "cow"], [2, 0, 1]):
        classroom = ck.Classroom(net(), [ck.Mentor(net(), "a", classes=classes)], "kd")
        with pytest.raises(UserError, match="mentor 'a': a classroom knows classes by their place"):
            classroom(*batch())


HALF, BRAIN, FULL, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("method", ["classroomkd", "fitnet", "camkd", "crd", "mmkd"])
@pytest.mark.parametrize(
    ("student", "mentor", "inputs", "autocast"),
    [
        (FULL, HALF, FULL, None),
        (FULL, DOUBLE, FULL, None),
        (BRAIN, FULL, FULL, None),
        (DOUBLE, HALF, FULL, None),
        (FULL, FULL, DOUBLE, None),
        (FULL, FULL, BRAIN, None),
        (FULL, HALF, FULL, BRAIN),
        (FULL, DOUBLE, DOUBLE, BRAIN),
    ],
    ids=str,
)
def test_every_precision_beside_every_other(
    student: torch.dtype,
    mentor: torch.dtype,
    inputs: torch.dtype,
    autocast: torch.dtype | None,
    method: str,
    stepped: bool,
) -> None:
    x, y = batch(6)
    ids = torch.arange(6)
    classroom = ck.Classroom(
        net().to(student), [net(name="convnet8").to(mentor), net()], method, image_shape=(3, 32, 32), register=(ids, y)
    )
    own = {id(p) for p in classroom.method.meta_parameters()}
    trained = [p for p in classroom.parameters() if id(p) not in own]
    context = PlainContext(classroom, torch.optim.SGD(trained, lr=0.01))
    around = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    for labels in (y.int(), y.to(torch.uint8)):
        given = {"inputs": x.to(inputs), "target": labels, "ids": ids}
        with around:
            lesson = classroom.method.step(context, given) if stepped else classroom(x.to(inputs), labels, ids=ids)
        if not stepped:
            lesson.loss.backward()
        assert lesson.loss.isfinite()
        assert lesson.mentors is not None
        assert lesson.mentors.prediction.dtype in (FULL, DOUBLE) or autocast is not None
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in trained)


def test_steps_in_a_loop_of_ones_own_are_looked_at_too() -> None:
    x, y = batch()
    classroom = ck.Classroom(net(), [net()], "kd")
    context = PlainContext(classroom, torch.optim.SGD(classroom.parameters(), lr=0.01))
    with pytest.raises(UserError, match="labels go from 7 to 7"):
        classroom.method.step(context, {"inputs": x, "target": torch.full_like(y, 7)})
    with pytest.raises(UserError, match="the batch is empty"):
        classroom.method.step(context, {"inputs": x[:0], "target": y[:0]})


class Session(nn.Module):
    """A network without tensors that torch knows of, as a runtime's session has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT\n  at session.run")


def test_what_goes_wrong_inside_a_network_is_one_sentence() -> None:
    x, y = batch()
    with pytest.raises(UserError, match=r"mentor 'Session' does not take a batch of shape \(4, 3, 32, 32\), float32"):
        ck.Classroom(net(), [Session()], "kd")(x, y)
    exported = torch.export.export(net().eval(), (x,)).module()
    classroom = ck.Classroom(net(), [ck.Mentor(exported, "fixed")], "kd")
    with pytest.raises(UserError, match=r"mentor 'fixed' does not take a batch of shape \(3, 3, 32, 32\)") as error:
        classroom(x[:3], y[:3])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"the student does not take a batch of shape \(4, 1, 32, 32\).*channels"):
        ck.Classroom(net(), [], "none")(x[:, :1], y)
    with pytest.raises(UserError, match=r"the student does not take.*more than 1 value per channel"):
        ck.Classroom(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3), nn.BatchNorm1d(3)), [], "none")(x[:1], y[:1])
