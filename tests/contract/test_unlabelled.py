"""Every method on batches of which all, some or none of the samples have a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import ALIKE, CLASSES, cases, few
from rooms import IDS, B, batch, by_main, classroom, said
from test_no_questions import Questions
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Answers, Classroom, Lesson, PlainContext
from classroomkd.data.targets import UNLABELLED
from classroomkd.tasks.classification.task import Classification

CASES = [(name, given) for name, given in cases(CLASSES) if not ALIKE & set(given)]
some = pytest.mark.parametrize(("name", "given"), few(CASES))
HIDDEN = torch.tensor([False, True, False, True, True, False])
NOT_BY_SAMPLE = ("batch", "rank")  # rules whose scores are the batch's
TEACH_ALL = ("amtml", "mmkd")  # labels train their weights, by which mentors teach every sample


def lesson_of(room: Classroom, hidden: Tensor, rows: slice | Tensor = slice(None)) -> Lesson:
    x, y = batch()
    return room(x[rows], y.masked_fill(hidden, UNLABELLED)[rows], ids=IDS[rows])


def gradients(room: Classroom) -> list[Tensor]:
    return [p.grad for p in by_main(room).values() if p.grad is not None]


@some
def test_some_none_or_one(name: str, given: dict[str, Any]) -> None:
    usual = set(classroom(name, given, said())(*batch(), ids=IDS).terms)
    for hidden, rows in (
        (HIDDEN, slice(None)),
        (torch.ones(B, dtype=torch.bool), slice(None)),
        (HIDDEN, slice(0, 1)),
        (HIDDEN, slice(1, 2)),
    ):
        room = classroom(name, given, said(), hidden=hidden)
        lesson = lesson_of(room, hidden, rows)
        assert set(lesson.terms) == usual
        assert all(term.isfinite() for term in lesson.terms.values())
        lesson.loss.backward()
        assert all(grad.isfinite().all() for grad in gradients(room))
        if hidden[rows].all():
            assert lesson.terms["supervised"] == 0
        if lesson.active is not None and lesson.weight is not None:
            assert (lesson.weight[~lesson.active] == 0).all()


@some
def test_a_batch_with_all_labels_has_the_bits_it_had(name: str, given: dict[str, Any]) -> None:
    found = []
    for hidden in (None, torch.zeros(B, dtype=torch.bool)):
        room = classroom(name, given, said(), hidden=hidden)
        lesson = room(*batch(), ids=IDS)
        lesson.loss.backward()
        found.append([*lesson.terms.values(), lesson.loss, *gradients(room)])
    assert all(map(torch.equal, *found))


@some
def test_the_class_that_stands_in_for_none_reaches_nothing(
    name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What indexes where no label is, is selected away: another class there gives the same bits."""
    found = []
    for place in (0, 3):
        monkeypatch.setattr(Classification, "_classes", lambda self, y, at=place: torch.where(y < 0, at, y))
        room = classroom(name, given, said(), hidden=HIDDEN)
        lesson = lesson_of(room, HIDDEN)
        lesson.loss.backward()
        record = [x for x in (lesson.weight, lesson.temperature, lesson.active) if x is not None]
        found.append([*lesson.terms.values(), lesson.loss, *record, *gradients(room)])
    assert len(found[0]) == len(found[1])
    assert all(map(torch.equal, *found))


@some
def test_labels_that_are_there_teach_as_if_alone(name: str, given: dict[str, Any]) -> None:
    """The student's own term, and all of a method that leaves samples without a label alone, is the labelled rows'."""
    weighting = given.get("weighting")
    if (weighting if isinstance(weighting, dict) else given).get("rule") in NOT_BY_SAMPLE:
        return  # the student's credibility, which multiplies its own term, is the whole batch's
    if "projector" in methods.options_model(name).model_fields:
        given = {**given, "projector": "linear"}  # the others normalise over the batch
    mixed, alone = (classroom(name, given, said(), hidden=HIDDEN) for _ in range(2))
    whole = lesson_of(mixed, HIDDEN)
    part = kept(alone.collect(*(batch()[0], whole.target), ids=IDS), ~HIDDEN)
    part.conclude(alone.method(part))
    torch.testing.assert_close(whole.terms["supervised"], part.terms["supervised"])
    if not mixed.method.needs.truth or name in TEACH_ALL:
        return
    for key, value in part.terms.items():
        torch.testing.assert_close(whole.terms[key], value, msg=lambda text, key=key: f"{key}: {text}")
    assert whole.active is not None
    assert not whole.active[:, HIDDEN].any()


def kept(lesson: Lesson, rows: Tensor) -> Lesson:
    """A lesson that is not taught yet, of some of its samples."""
    heads, student, mentors = lesson.heads, lesson.student, lesson.mentors

    def head(mentor: int, tap: str, value: Tensor) -> Tensor:
        assert heads is not None
        whole = value.new_zeros(len(rows), *value.shape[1:]).index_put((rows,), value)  # as many as it has seen
        return heads(mentor, tap, whole)[rows]

    def of(answers: Answers, mentors: bool) -> Answers:
        found = {t: tuple(y[rows] for y in x) if isinstance(x, tuple) else x[rows] for t, x in answers.features.items()}
        return Answers(answers.prediction[:, rows] if mentors else answers.prediction[rows], found)

    assert lesson.ids is not None
    return replace(
        lesson,
        inputs=lesson.inputs[rows],
        target=lesson.target[rows],
        student=of(student, False),
        peers={name: of(peer, False) for name, peer in lesson.peers.items()},
        averaged={name: one[rows] for name, one in lesson.averaged.items()},
        mentors=None if mentors is None else of(mentors, True),
        ids=lesson.ids[rows],
        heads=None if heads is None else head,
    )


@some
def test_no_step_on_a_mixed_batch_waits_for_the_device(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said(), hidden=HIDDEN)
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=1e-4, momentum=0.9, foreach=False))
    x, y = batch()
    shown = {"inputs": x, "target": y.masked_fill(HIDDEN, UNLABELLED), "ids": IDS, "views": torch.zeros(B).long()}
    room.method.step(context, shown)
    with Questions() as found:
        for _ in range(max(2, room.method.period)):
            lesson = room.method.step(context, shown)
    assert not found.asked
    assert lesson.loss.isfinite()
