"""Every method in the table answers the same questions, without being told its name (DESIGN, tests)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classroomkd import bank, methods
from classroomkd.classroom import Calibration, Classroom, Lesson, PlainContext
from classroomkd.errors import UserError

B, C, M = 6, 5, 3


def options(name: str) -> list[dict[str, Any]]:
    """The defaults and one variant for every closed choice and switch of a method's options."""
    found: list[dict[str, Any]] = [{}]
    for key, field in methods.options_model(name).model_fields.items():
        choices: tuple[Any, ...] = getattr(field.annotation, "__args__", ())
        flat = tuple(itertools.chain.from_iterable(getattr(c, "__args__", (c,)) for c in choices))
        values = [v for v in flat if isinstance(v, str)] if flat else []
        if field.annotation is bool:
            values = [not field.default]
        found += [{key: v} for v in values if v != field.default]
    return found


CASES = [(name, o) for name in methods.names() for o in options(name)]
IDS = [f"{n}-{'-'.join(f'{k}={v}' for k, v in o.items()) or 'default'}" for n, o in CASES]
every = pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)


class Speaker(nn.Module):
    """A network that says what it was told to say; answers are parameters so that a leak of gradient shows."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: len(x)]


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, C))


def said(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return 3 * torch.randn(M, B, C)


def classroom(
    name: str, given: dict[str, Any], answers: Tensor, net: nn.Module | None = None, order: Tensor | None = None
) -> Classroom:
    torch.manual_seed(5)
    order = torch.arange(len(answers)) if order is None else order
    room = Classroom(net or student(), [Speaker(a) for a in answers[order]], methods.create(name, **given))
    room.calibration = Calibration(
        torch.linspace(0.5, 2.0, M)[order], torch.linspace(0.6, 0.9, M)[order, None].repeat(1, C)
    )
    return room


def batch(n: int = B, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(n, 3, 2, 2).to(dtype), torch.randint(C, (n,))


def teach(name: str, given: dict[str, Any], answers: Tensor, n: int = B) -> tuple[Classroom, Lesson]:
    room = classroom(name, given, answers)
    return room, room(*batch(n))


@every
def test_finite_and_everything_trainable_learns(name: str, given: dict[str, Any]) -> None:
    room, lesson = teach(name, given, said())
    lesson.loss.backward()
    assert lesson.loss.dim() == 0
    assert lesson.loss.isfinite()
    assert lesson.terms
    trainable = dict(room.named_parameters())
    assert trainable
    for key, parameter in trainable.items():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    for mentor in room.mentors:
        assert all(p.grad is None and not p.requires_grad for p in mentor.parameters())
        assert not any(m.training for m in mentor.modules())


@every
def test_mentors_are_outside(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said())
    room.train()
    assert not any(m.training for mentor in room.mentors for m in mentor.modules())
    assert not any("logits" in key for key in room.state_dict())
    room.to(torch.float64)
    assert all(p.dtype == torch.float64 for mentor in room.mentors for p in mentor.parameters())


@every
def test_record_has_its_shapes(name: str, given: dict[str, Any]) -> None:
    _, lesson = teach(name, given, said())
    if lesson.weight is None:
        assert lesson.active is None
        return
    assert lesson.temperature is not None
    assert lesson.active is not None
    assert lesson.weight.shape == lesson.temperature.shape == lesson.active.shape == (M, B)
    assert lesson.active.dtype == torch.bool
    assert (lesson.weight[~lesson.active] == 0).all()
    assert not lesson.weight.requires_grad


@every
def test_permuting_mentors_permutes_weights(name: str, given: dict[str, Any]) -> None:
    answers, order = said(), torch.tensor([2, 0, 1])
    one = classroom(name, given, answers)(*batch())
    other = classroom(name, given, answers, order=order)(*batch())
    if one.weight is None or "mentor" in methods.options_model(name).model_fields:
        return  # a method that names its one mentor by place or score is not symmetric, by its own rule
    assert other.weight is not None
    torch.testing.assert_close(other.weight, one.weight[order])
    torch.testing.assert_close(other.loss, one.loss)


@every
def test_batch_of_one_and_one_mentor(name: str, given: dict[str, Any]) -> None:
    _, lesson = teach(name, given, said(), 1)
    assert lesson.loss.isfinite()
    _, single = teach(name, given, said()[:1])
    assert single.loss.isfinite()


@every
def test_nan_of_an_inactive_mentor_stays_away(name: str, given: dict[str, Any]) -> None:
    answers = said()
    answers[1] = float("nan")
    room, lesson = teach(name, given, answers)
    if lesson.active is not None and lesson.active[1].any():
        assert not lesson.loss.isfinite()  # it does teach: the loss must say so rather than hide it
        return
    lesson.loss.backward()
    assert lesson.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in room.parameters())


@every
def test_bf16(name: str, given: dict[str, Any]) -> None:
    answers = said()
    _, wide = teach(name, given, answers)
    net = student().to(torch.bfloat16)
    room = classroom(name, given, answers.to(torch.bfloat16), net)
    lesson = room(*batch(dtype=torch.bfloat16))
    lesson.loss.backward()
    assert lesson.loss.dtype == torch.float32
    assert all(v.isfinite() for v in lesson.terms.values())
    for key, value in wide.terms.items():
        torch.testing.assert_close(lesson.terms[key], value, rtol=0.25, atol=0.1)


@every
def test_bank_equals_online(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    answers = said().half().float()  # the stored precision
    x, y = batch()
    ids, views = torch.arange(B) * 7 + 3, torch.zeros(B, dtype=torch.int64)
    paths = []
    for m in range(M):
        paths.append(tmp_path / f"{m}.npy")
        np.save(paths[-1], answers[m][None].half().numpy())
    online = classroom(name, given, answers)(x, y, ids=ids, views=views)
    room = classroom(name, given, torch.full_like(answers, float("nan")))
    room.mentors.store = bank.FixedBank(paths, ids, torch.device("cpu"))
    stored = room(x, y, ids=ids, views=views)
    assert room.mentors.forwards == 0
    assert torch.equal(stored.loss, online.loss)
    shuffled = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    other = room(x[shuffled], y[shuffled], ids=ids[shuffled], views=views)
    torch.testing.assert_close(other.loss, stored.loss)


@every
def test_a_step_changes_the_student_in_a_foreign_loop(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said())
    if room.method.needs.own_step:
        pytest.skip("says when built that it needs its own loop")
    before = [p.detach().clone() for p in room.parameters()]
    x, y = batch()
    context = PlainContext(room, torch.optim.SGD(room.parameters(), lr=0.1))
    lesson = room.method.step(context, {"inputs": x, "target": y})
    assert lesson.loss.isfinite()
    assert all(not torch.equal(a, b) for a, b in zip(before, room.parameters(), strict=True))


@every
def test_no_host_sync_in_the_terms(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    room = classroom(name, given, said())
    room(*batch())

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    room.method(room.gather(*batch()))


@pytest.mark.parametrize("name", methods.names())
def test_mentors_needed_are_asked_for(name: str) -> None:
    method = methods.create(name)
    if method.needs.mentors == 0:
        assert Classroom(student(), [], method)(*batch()).loss.isfinite()
        return
    with pytest.raises(UserError, match="mentor"):
        Classroom(student(), [], method)


@pytest.mark.parametrize("name", methods.names())
def test_data_sheet(name: str) -> None:
    import sys

    sheet = sys.modules[methods.method_class(name).__module__].__doc__ or ""
    for word in ("System", "Rule", "Defaults", "Cost", "Hurts"):
        assert word in sheet, f"{name}: the data sheet lacks '{word}'"
    source = Path(sys.modules[methods.method_class(name).__module__].__file__ or "")
    if "classroomkd/methods" in source.as_posix():
        assert len(source.read_text().splitlines()) <= 160
