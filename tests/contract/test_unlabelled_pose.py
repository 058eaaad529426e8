"""Every method that does pose on batches of which all, some or none of the persons have joints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import few, rules
from pose_lessons import HEADS
from rooms import IDS, B, batch, by_main, classroom, said, targets, without_label
from test_no_questions import Questions
from torch import Tensor

from classroomkd.classroom import Classroom, Lesson, PlainContext
from classroomkd.methods.pieces.features import FeatureMethod
from classroomkd.tasks.pose.task import Pose

CASES = rules("simcc")
some = pytest.mark.parametrize(("name", "given"), few(CASES))
heads = pytest.mark.parametrize("head", HEADS)
HIDDEN = torch.tensor([False, True, False, True, True, False])
NOBODY, ALL = torch.zeros(B, dtype=torch.bool), torch.ones(B, dtype=torch.bool)
TEACH_ALL = ("amtml", "mmkd")  # labels train their weights, by which mentors teach everybody


def target(head: str, hidden: Tensor) -> Tensor:
    return torch.where(hidden.view(-1, 1, 1), without_label(head), targets(B, head))


def room(name: str, given: dict[str, Any], head: str, hidden: Tensor | None) -> Classroom:
    return classroom(name, given, said(kind=head), kind=head, hidden=hidden)


def taught(of: Classroom, head: str, hidden: Tensor, rows: slice = slice(None)) -> Lesson:
    lesson = of(batch()[0][rows], target(head, hidden)[rows], ids=IDS[rows])
    lesson.loss.backward()
    return lesson


def found(of: Classroom, lesson: Lesson) -> list[Tensor]:
    record = [x for x in (lesson.weight, lesson.temperature, lesson.active) if x is not None]
    grads = [p.grad for p in by_main(of).values() if p.grad is not None]
    return [*lesson.terms.values(), lesson.loss, *record, *grads]


@heads
@some
def test_some_none_or_one(name: str, given: dict[str, Any], head: str) -> None:
    usual: set[str] | None = None
    for hidden, rows in ((NOBODY, slice(None)), (HIDDEN, slice(None)), (ALL, slice(None)), (HIDDEN, slice(1, 2))):
        of = room(name, given, head, hidden)
        lesson = taught(of, head, hidden, rows)
        usual = usual or set(lesson.terms)
        assert set(lesson.terms) == usual
        assert all(x.isfinite().all() for x in found(of, lesson))
        if hidden[rows].all():
            assert lesson.terms["supervised"] == 0
        if lesson.active is not None and lesson.weight is not None:
            assert (lesson.weight[~lesson.active] == 0).all()


@pytest.mark.parametrize("head", ["simcc"])
@some
def test_a_batch_of_labelled_people_has_the_bits_it_had(name: str, given: dict[str, Any], head: str) -> None:
    both = [(of := room(name, given, head, hidden), taught(of, head, NOBODY)) for hidden in (None, NOBODY)]
    assert all(torch.equal(a, b) for a, b in zip(*(found(*one) for one in both), strict=True))


@pytest.mark.parametrize("head", ["heatmap"])
@some
def test_people_without_joints_are_taught_where_no_label_is_needed(name: str, given: dict[str, Any], head: str) -> None:
    of = room(name, given, head, HIDDEN)
    lesson = taught(of, head, HIDDEN)
    if lesson.active is None or isinstance(of.method, FeatureMethod):
        return
    somebody = lesson.active.flatten(2).any(-1).any(0)
    if of.method.needs.truth and name not in TEACH_ALL and given.get("weighting") != "confidence":
        assert not somebody[HIDDEN].any()
    elif name != "classroomkd" and "classroomkd" not in str(given):  # whose gates may leave anybody alone
        assert somebody[HIDDEN].all()
    assert isinstance(lesson.task, Pose)
    if name == "votes":
        assert not somebody[~HIDDEN].any()


@heads
@pytest.mark.parametrize("rule", ["sample", "batch"])
def test_by_agreement_who_is_ahead_of_the_student_teaches(rule: str, head: str) -> None:
    by_agreement, skipping = (
        taught(room("classroomkd", {"rule": rule, "unlabelled": how}, head, HIDDEN), head, HIDDEN)
        for how in ("agreement", "skip")
    )
    assert by_agreement.active is not None
    assert skipping.active is not None
    assert by_agreement.active[:, HIDDEN].any()
    assert not skipping.active[:, HIDDEN].any()
    joints = targets(B, head)[..., 2] > 0
    assert not by_agreement.active.any(0)[~HIDDEN & ~joints.any(-1)].any()
    assert not by_agreement.active.any(0)[(~HIDDEN).unsqueeze(1) & ~joints].any()  # as ever


@pytest.mark.parametrize("head", ["heatmap"])
@some
def test_no_step_on_a_mixed_batch_waits_for_the_device(name: str, given: dict[str, Any], head: str) -> None:
    of = room(name, given, head, HIDDEN)
    context = PlainContext(of, torch.optim.SGD(by_main(of).values(), lr=1e-4, momentum=0.9, foreach=False))
    shown = {"inputs": batch()[0], "target": target(head, HIDDEN), "ids": IDS, "views": torch.zeros(B).long()}
    of.method.step(context, shown)
    with Questions() as asked:
        for _ in range(max(2, of.method.period)):
            lesson = of.method.step(context, shown)
    assert not asked.asked
    assert lesson.loss.isfinite()
