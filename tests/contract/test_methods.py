"""Every method in the table answers the same questions, without being told its name (DESIGN, tests)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import cases, few, labels
from rooms import IDS, SHAPE, B, M, batch, by_main, classroom, peers_for, said, student, teach, teachers_for
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd import methods
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.classroom.trainees import is_own_loss
from classroomkd.errors import UserError
from classroomkd.methods.pieces.features import FeatureMethod

CASES = cases("classification")
NAMES = list(dict.fromkeys(name for name, _ in CASES))
every = pytest.mark.parametrize(("name", "given"), CASES, ids=labels(CASES))
some = pytest.mark.parametrize(("name", "given"), few(CASES))


@every
def test_finite_and_everything_trainable_learns(name: str, given: dict[str, Any]) -> None:
    room, lesson = teach(name, given, said())
    lesson.loss.backward()
    assert lesson.loss.dim() == 0
    assert lesson.loss.isfinite()
    assert lesson.terms
    trainable = by_main(room)
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
    room = classroom(name, given, answers)
    one = room(*batch(), ids=IDS)
    chosen = methods.options_model(name).model_fields
    named = any(key in chosen and chosen[key].default != "all" for key in ("mentor", "assistant"))
    if one.weight is None or named or room.method.order_matters:
        return  # a method that names its one mentor, or learns something by place, is not symmetric by its own rule
    torch.manual_seed(5)
    other = classroom(name, given, answers, order=order)(*batch(), ids=IDS)
    assert other.weight is not None
    torch.testing.assert_close(other.weight, one.weight[order])
    if not any(room.method.children()):  # trainable parts start from other numbers
        torch.testing.assert_close(other.loss, one.loss)


@some
def test_batch_of_one_and_one_and_twelve_mentors(name: str, given: dict[str, Any]) -> None:
    _, lesson = teach(name, given, said(), 1)
    assert lesson.loss.isfinite()
    for mentors in (2 if methods.create(name, **given).needs.selves else 1, 12):
        room, lesson = teach(name, given, said(mentors=mentors))
        lesson.loss.backward()
        assert lesson.loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in room.parameters())


@some
def test_nan_of_an_inactive_mentor_stays_away(name: str, given: dict[str, Any]) -> None:
    answers = said()
    answers[1] = float("nan")
    room, lesson = teach(name, given, answers)
    if not isinstance(room.method, FeatureMethod) and lesson.active is not None and lesson.active[1].any():
        assert not lesson.loss.isfinite()  # it does teach: the loss must say so rather than hide it
        return
    lesson.loss.backward()
    assert lesson.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in by_main(room).values())


@some
def test_bf16(name: str, given: dict[str, Any]) -> None:
    answers = said()
    _, wide = teach(name, given, answers)
    net = student().to(torch.bfloat16)
    room = classroom(name, given, answers.to(torch.bfloat16), net)
    lesson = room(*batch(dtype=torch.bfloat16), ids=IDS)
    lesson.loss.backward()
    assert lesson.loss.dtype == torch.float32
    assert all(v.isfinite() for v in lesson.terms.values())
    for key, value in wide.terms.items():
        torch.testing.assert_close(lesson.terms[key], value, rtol=0.25, atol=0.1)


def without_effect(room: Classroom) -> set[str]:
    """Biases in front of a BatchNorm, which takes them away: their gradient is 0 but for rounding."""
    found = set()
    for name, part in room.named_modules():
        if isinstance(part, nn.Sequential):
            for (key, _), (_, after) in pairwise(part.named_children()):
                if isinstance(after, _BatchNorm):
                    found.add(f"{name}.{key}.bias")
    return found


@some
def test_a_step_changes_everything_in_a_foreign_loop(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said())
    before = {key: p.detach().clone() for key, p in room.named_parameters()}
    x, y = batch()
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=0.1, momentum=0.9))
    for _ in range(1 if room.method.period == 1 else 2 * room.method.period + 1):
        lesson = room.method.step(context, {"inputs": x, "target": y, "ids": IDS})
        assert lesson.loss.isfinite()
    for key, parameter in room.named_parameters():
        assert parameter.isfinite().all(), key
        moved = key not in before or not torch.equal(parameter, before[key])
        assert moved == parameter.requires_grad or key in without_effect(room), key


@some
def test_no_host_sync_in_the_terms(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    room = classroom(name, given, said())
    x, y = batch()
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=0.1, momentum=0.9))
    for _ in range(2 * room.method.period):
        room.method.step(context, {"inputs": x, "target": y, "ids": IDS})

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    for _ in range(room.method.period):
        lesson = room.collect(x, y, ids=IDS)
        lesson.conclude(room.method(lesson))
        if room.method.period > 1:
            room.method.after_step(context, lesson)
            room.steps += 1


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_multiplies_the_mentors_terms(name: str) -> None:
    if methods.method_class(name).needs.mentors == 0:
        return
    _, whole = teach(name, {"schedule": "constant"}, said())
    room = classroom(name, {"schedule": {"decay": {"epochs": 4}}}, said())
    room.epoch = 3.0
    quarter = room(*batch(), ids=IDS)
    supervised = {key for key in whole.terms if is_own_loss(key)}
    assert whole.outcome is not None
    assert quarter.outcome is not None
    for key in whole.terms.keys() - supervised:
        assert quarter.outcome.coefficients[key] == pytest.approx(whole.outcome.coefficients.get(key, 1.0) / 4)
    for key in supervised:
        assert quarter.outcome.coefficients.get(key) == whole.outcome.coefficients.get(key)


@pytest.mark.parametrize("name", NAMES)
def test_matched_strength_is_one(name: str) -> None:
    if not methods.create(name).teaches:
        with pytest.raises(UserError, match="strength"):
            methods.create(name, strength="matched")
        return
    _, lesson = teach(name, {"strength": "matched", "schedule": "constant"}, said())
    terms = lesson.outcome
    assert terms is not None
    if methods.create(name).needs.mentors == 0:  # what peers or nobody teach has no weights of mentors
        assert terms.weight is None
        assert set(terms.coefficients.values()) == {1.0}
        return
    assert terms.weight is not None
    assert terms.active is not None
    if "distilled" in terms.values and "distilled" not in terms.totals:
        taught = terms.active.any(0)
        total = terms.weight.sum(0)[taught].mean() if taught.any() else torch.ones(())
        coefficient = torch.as_tensor(terms.coefficients["distilled"])
        own = methods.create(name, strength="matched").coefficients["distilled"]  # type: ignore[operator,index]
        torch.testing.assert_close(coefficient * total, torch.as_tensor(float(own)))


@pytest.mark.parametrize("name", NAMES)
def test_mentors_needed_are_asked_for(name: str) -> None:
    method = methods.create(name)
    if method.needs.peers[0]:
        with pytest.raises(UserError, match="peer"):
            Classroom(student(), [], method)
    if method.needs.mentors == 0:
        peers = peers_for(method, said())
        teachers = teachers_for(method, peers)
        shape = SHAPE if method.needs.branches > 1 else None
        room = Classroom(student(), [], method, peers=peers, teachers=teachers, image_shape=shape)
        assert room(*batch()).loss.isfinite()
        return
    with pytest.raises(UserError, match="mentor"):
        Classroom(student(), [], method, peers=peers_for(method, said()), image_shape=SHAPE)


@pytest.mark.parametrize("name", methods.names())
def test_data_sheet(name: str) -> None:
    import sys

    sheet = sys.modules[methods.method_class(name).__module__].__doc__ or ""
    for word in ("System", "Rule", "Defaults", "Cost", "Hurts"):
        assert word in sheet, f"{name}: the data sheet lacks '{word}'"
    source = Path(sys.modules[methods.method_class(name).__module__].__file__ or "")
    if "classroomkd/methods" in source.as_posix():
        assert len(source.read_text().splitlines()) <= 160
