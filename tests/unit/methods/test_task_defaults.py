"""Options that have another default on a task: who gets them, and what counts more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import classroomkd as ck
from classroomkd import methods
from classroomkd.classroom import Method, Terms
from classroomkd.data.skeleton import Skeleton
from classroomkd.methods.average import Average
from classroomkd.tasks.pose.coding import SimCC
from classroomkd.tasks.pose.task import Pose

TWO = Skeleton("two", ("nose", "neck"), (), (0.079, 0.079), (), ())


class Answers(nn.Module):
    """Bins of two joints in 8 x 8 pixels, from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = nn.Parameter(torch.zeros(2, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bins.expand(len(x), 2, 16)


@pytest.fixture(autouse=True)
def own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Average, "task_defaults", {"pose": {"temperature": 1.5}})


def temperature(method: Any) -> float:
    return float(method.divergence.temperature)


def test_without_a_task_the_constructors_defaults_hold() -> None:
    assert temperature(methods.create("average")) == 4.0
    assert methods.filled("average", {})["temperature"] == 4.0
    assert methods.defaults("average")["temperature"] == 4.0
    assert Method.task_defaults == {}


def test_a_task_has_its_own_unless_the_user_says_otherwise() -> None:
    assert temperature(methods.create("average", task="pose")) == 1.5
    assert temperature(methods.create("average", task="classification")) == 4.0
    assert temperature(methods.create("average", task="pose", temperature=3)) == 3.0
    assert methods.filled("average", {}, "pose")["temperature"] == 1.5
    assert methods.defaults("average", "pose")["temperature"] == 1.5
    both = methods.compose([("kd", {}), ("average", {})], task="pose")
    assert temperature(next(iter(both.children()))[1]) == 1.5  # type: ignore[index]


def test_a_classroom_fills_them_in_for_a_method_by_name_alone() -> None:
    pose = Pose(SimCC((8, 8), 2, split=1.0), TWO)
    named = ck.Classroom(Answers(), [Answers()], "average", task=pose)
    assert temperature(named.method) == 1.5
    built = ck.Classroom(Answers(), [Answers()], methods.create("average"), task=pose)
    assert temperature(built.method) == 4.0
    plain = ck.Classroom(nn.Linear(3, 2), [nn.Linear(3, 2)], "average")
    assert temperature(plain.method) == 4.0


def test_a_default_that_a_subclass_has_no_option_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Average):
        """A plug-in."""

        def __init__(self, *, weight: float = 1.0) -> None:
            super().__init__(weight=weight)

        def loss(self, lesson: Any) -> Terms:
            raise NotImplementedError

    monkeypatch.setattr(methods, "method_class", lambda name: Mine)
    methods.options_model.cache_clear()
    try:
        assert methods.filled("mine", {}, "pose") == {"weight": 1.0}
        assert temperature(methods.create("mine", task="pose")) == 4.0
    finally:
        methods.options_model.cache_clear()


def test_the_rules_of_classroomkd_have_defaults_of_their_own() -> None:
    def found(**options: Any) -> tuple[str, float, str]:
        given = methods.filled("classroomkd", options, options.pop("task", None))
        return given["normalise"], given["floor"], given["supervised"]

    own, released = ("unit", 2.0, "credibility"), ("native", 1.0, "credibility")
    for given in ({}, {"task": "classification"}, {"normalise": None, "floor": None, "supervised": None}):
        assert found(**given) == own
    assert found(task="pose") == found(rule="batch") == found(rule="rank", task="pose") == released
    assert found(rule="batch", floor=3, normalise="unit") == ("unit", 3.0, "credibility")
    assert found(normalise="native", floor=1) == released
    for rule, its in (("sample", own), ("batch", released)):
        built = methods.method_class("classroomkd")(rule=rule).weighting
        assert (built.normalise, built.floor, built.supervised) == its
    weighted = methods.create("weighted", weighting="classroomkd")
    assert (weighted.weighting.normalise, weighted.weighting.floor) == ("unit", 2.0)
