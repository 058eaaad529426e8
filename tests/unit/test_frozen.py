"""Mentors stay as they were, whatever happens around them; and nothing of them is trained with the student."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom.frozen import keep_frozen, refuse_shared
from classroomkd.errors import UserError


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 4)
    )


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(9)
    return torch.randn(6, 3, 4, 4), torch.arange(6) % 4


class Holder(nn.Module):
    """A user's own module that holds everything it works with."""

    def __init__(self, room: ck.Classroom, mentors: list[nn.Module]) -> None:
        super().__init__()
        self.room, self.mentors = room, nn.ModuleList(mentors)


def _whole(holder: Holder) -> None:
    holder.train()


def _each(holder: Holder) -> None:
    holder.apply(lambda layer: layer.train() and None)


def _itself(holder: Holder) -> None:
    for mentor in holder.mentors:
        mentor.train()


def _one_layer(holder: Holder) -> None:
    holder.mentors[0][1].train()  # type: ignore[index]


def _flag(holder: Holder) -> None:
    holder.mentors[0][1].training = True  # type: ignore[index]


def _gradients(holder: Holder) -> None:
    holder.requires_grad_(True)


def _new_layer(holder: Holder) -> None:
    holder.mentors[0][3] = nn.Dropout(0.9)  # type: ignore[index]


@pytest.mark.parametrize("change", [_whole, _each, _itself, _one_layer, _flag, _gradients, _new_layer])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: ck.Mentor(m, "own")])
def test_mentors_stay_as_they_were(change: Callable[[Holder], None], wrap: Callable[[nn.Module], nn.Module]) -> None:
    x, y = batch()
    networks = [net(1), net(2)]
    networks[1][0] = networks[0][0]  # mentors may share what they have
    room = ck.Classroom(net(), [wrap(network) for network in networks], "average")
    holder = Holder(room, list(networks))
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    first = room.collect(x, y).mentors
    assert first is not None
    for _ in range(2):
        change(holder)
        lesson = room(x, y)
        lesson.loss.backward()
        assert lesson.mentors is not None
        assert torch.equal(lesson.mentors.prediction, first.prediction)
    for network, was in zip(networks, before, strict=True):
        assert not any(layer.training for layer in network.modules())
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
        assert all(torch.equal(value, was[name]) for name, value in network.state_dict().items())
    assert room.student[3].training or change is not _whole  # type: ignore[index]


def test_exported_and_traced_mentors_are_kept_too() -> None:
    x, y = batch()
    traced = torch.jit.trace(net(1).eval(), x) if hasattr(torch.jit, "trace") else net(1)
    exported = torch.export.export(net(2).eval(), (x,)).module()
    room = ck.Classroom(net(), [traced, exported], "average")
    expected = [net(1).eval()(x), net(2).eval()(x)]
    traced.train()
    said = room(x, y).mentors
    assert said is not None
    for own, other in zip(said.prediction, expected, strict=True):
        torch.testing.assert_close(own, other)
    assert not any(layer.training for layer in traced.modules())


def test_calibration_and_replays_do_not_change_mentors() -> None:
    x, y = batch()
    network = net(1)
    room = ck.Classroom(net(), [network], "average")
    before = copy.deepcopy(network.state_dict())
    network.train()
    ck.calibrate(room.mentors, [(x, y)])
    network.train()
    room.mentors.one(0, x)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Stem(nn.Module):
    def __init__(self, stem: nn.Module, seed: int) -> None:
        super().__init__()
        self.stem, self.rest = stem, net(seed)

    def forward(self, x: Tensor) -> Any:
        return self.rest(self.stem(x))


def _same_layer(student: nn.Module, mentor: nn.Module) -> None:
    mentor.stem = student.stem


def _tied(student: Any, mentor: Any) -> None:
    mentor.stem.weight = student.stem.weight


def _view(student: Any, mentor: Any) -> None:
    mentor.stem.weight = nn.Parameter(student.stem.weight.detach().view_as(student.stem.weight))


def _part(student: Any, mentor: Any) -> None:
    """The mentor has half of the memory that the student's layer has."""
    mentor.stem = nn.Conv2d(3, 1, 1)
    mentor.stem.weight = nn.Parameter(student.stem.weight.detach()[1:2])


def _statistics(student: Any, mentor: Any) -> None:
    mentor.rest[1].running_mean = student.rest[1].running_mean


def _dropout(student: Any, mentor: Any) -> None:
    mentor.rest[3] = student.rest[3]  # its mode would be the mentor's


@pytest.mark.parametrize("share", [_same_layer, _tied, _view, _part, _statistics, _dropout])
def test_what_student_and_mentor_share_is_refused(share: Callable[[Any, Any], None]) -> None:
    student, mentor = Stem(nn.Conv2d(3, 3, 1), 0), Stem(nn.Conv2d(3, 3, 1), 1)
    ck.Classroom(student, [mentor], "average")
    share(student, mentor)
    place = {"_statistics": r"rest\.1", "_dropout": r"rest\.3"}.get(share.__name__, "stem")
    for wrapped in (mentor, ck.Mentor(mentor, "big")):
        with pytest.raises(UserError, match=rf"mentor '(big|Stem)' and the student share '{place}.*deepcopy"):
            ck.Classroom(student, [net(2), wrapped], "average")
    with pytest.raises(UserError, match=place):
        refuse_shared(torch.compile(student), [("big", mentor)])  # type: ignore[arg-type]


def test_what_cannot_change_may_be_shared() -> None:
    student, mentor = net(0), net(1)
    mentor[2] = student[2]  # an activation without a mode
    flat = torch.zeros(2, 64 * 4)  # one block of memory, a part for each
    student[5].weight, mentor[5].weight = (nn.Parameter(row.view(4, 64)) for row in flat)
    ck.Classroom(student, [mentor], "average")(*batch()).loss.backward()


def test_a_lazy_layer_is_named_and_may_run_first() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(UserError, match=r"the student has layers without a shape yet \('1', LazyLinear\)"):
        ck.Classroom(lazy, [net(1)], "average")
    lazy(batch()[0])
    ck.Classroom(lazy, [net(1)], "average")(*batch()).loss.backward()


def test_nothing_is_touched_where_nothing_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = net(1).eval().requires_grad_(False)
    monkeypatch.setattr("classroomkd.classroom.frozen.freeze", lambda network: pytest.fail("frozen again"))
    keep_frozen(network)
