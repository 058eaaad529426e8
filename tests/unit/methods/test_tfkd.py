"""tfkd: the virtual teacher against its formula, the student's earlier self against kd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import methods
from classroomkd.classroom import Classroom
from classroomkd.errors import UserError

C, N = 7, 5


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, C)).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x, torch.randint(C, (N,), generator=generator)


def test_the_virtual_teacher_is_the_released_one_in_means_over_the_batch() -> None:
    x, y = batch()
    room = Classroom(network(0), (), methods.create("tfkd", temperature=3.0, correct=0.9, weight=0.4))
    lesson = room(x, y)
    written = torch.full((N, C), 0.1 / (C - 1), dtype=torch.float64)
    written[torch.arange(N), y] = 0.9
    log_q = network(0)(x).log_softmax(-1)
    expected = F.kl_div(log_q, (written / 3).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(lesson.terms["virtual"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lesson.loss, 0.9 * F.cross_entropy(network(0)(x), y) + 0.4 * expected)


def test_the_virtual_teacher_needs_nobody_and_only_labelled_samples() -> None:
    x, y = batch()
    room = Classroom(network(0), (), "tfkd", unlabelled=True)
    some = room(x, torch.where(torch.arange(N) < 3, y, -1))
    few = room(x[:3], y[:3])
    torch.testing.assert_close(some.terms["virtual"], few.terms["virtual"])


def test_the_earlier_self_is_kd_from_it() -> None:
    x, y = batch()
    own: dict[str, Any] = {"temperature": 6.0, "weight": 0.475, "supervised_weight": 0.05}
    one = Classroom(network(0), [network(3)], methods.create("tfkd", teacher="self"))(x, y)
    other = Classroom(network(0), [network(3)], methods.create("kd", **own))(x, y)
    assert torch.equal(one.loss, other.loss)
    assert one.weight is not None
    assert methods.defaults("tfkd", "pose", {"teacher": "self"})["temperature"] == 1.0
    assert methods.defaults("tfkd", "pose")["temperature"] == 20.0


def test_the_earlier_self_must_be_there() -> None:
    with pytest.raises(UserError, match="at least 1 mentor"):
        Classroom(network(0), (), methods.create("tfkd", teacher="self"))


def test_options_that_act_on_nothing_are_named() -> None:
    cls = methods.method_class("tfkd")
    assert cls.idle({"teacher": "self", "correct": 0.5})
    assert cls.idle({"mentor": "big"})
    assert not cls.idle({"teacher": "self", "mentor": "big"})


def test_the_schedule_acts_on_the_virtual_teacher() -> None:
    x, y = batch()
    room = Classroom(network(0), (), methods.create("tfkd", schedule={"after": {"epochs": 2}}, supervised_weight=1.0))
    room.epochs, room.epoch = 4, 0
    torch.testing.assert_close(room(x, y).loss, F.cross_entropy(network(0)(x), y))
