"""Gating before the forward pass: a mentor runs where it may count, and the lesson is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_folding import PIXELS, stirred
from torch import Tensor

from classroomkd import methods, models, tasks
from classroomkd.classroom import Answers, ClassInfo, Classroom, Lesson, Mentor, StepInfo, Terms
from classroomkd.classroom.gating import ask_where, knows

B, C = 8, 10
# In float64: a mentor that is asked about fewer samples may add in another order, which DIST's correlations enlarge.
INPUTS = torch.cat([PIXELS, PIXELS.flip(3), PIXELS.flip(2)])[:B].double()
TARGET = torch.arange(B) % C
KNOWN = (None, tuple(range(5)), (7, 6, 5, 2, 1, 0))


class Counting(Mentor):
    """It says how many samples it was asked about."""

    asked = 0

    def forward(self, inputs: Tensor) -> Answers:
        self.asked += len(inputs)
        return super().forward(inputs)


def mentors() -> list[Counting]:
    torch.manual_seed(0)
    return [
        Counting(stirred(models.create("resnet8", C if known is None else len(known))).double(), f"m{i}", classes=known,
                 num_classes=None if known is None else C)
        for i, known in enumerate(KNOWN)
    ]  # fmt: skip


def test_rows_and_fills() -> None:
    mentor = mentors()[0]
    mentor.read({"@stage:-1": "map", "@penultimate": "pooled"}, INPUTS)
    whole = mentor(INPUTS)
    for where, count in (
        (None, B),
        (torch.ones(B, dtype=torch.bool), B),
        (TARGET % 3 == 0, 3),
        (torch.zeros(B, dtype=torch.bool), 1),  # for the shapes
    ):
        mentor.asked = 0
        said = ask_where(mentor, INPUTS, where)
        assert mentor.asked == count
        rows = torch.ones(B, dtype=torch.bool) if where is None else where
        pairs = [(said.prediction, whole.prediction), *((said.features[t], x) for t, x in whole.features.items())]
        for got, expected in pairs:
            assert got.shape == expected.shape
            torch.testing.assert_close(got[rows], expected[rows])
            assert got[~rows].isnan().all()


def test_knows() -> None:
    table = knows(KNOWN, C, TARGET)
    assert table.tolist() == [[known is None or int(t) in known for t in TARGET] for known in KNOWN]


def taught(method: Any, where: Tensor | None) -> tuple[Terms, Tensor, int]:
    """The terms, the gradient at the student's logits, and the samples the mentors were asked about."""
    people = mentors()
    said = [ask_where(m, INPUTS, None if where is None else where[i]) for i, m in enumerate(people)]
    logits = torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    answers = Answers(torch.stack([a.prediction for a in said]))
    ids = torch.arange(B) * 7
    lesson = Lesson(INPUTS, TARGET, Answers(logits), answers, tasks.create("classification"), ids, step=3)
    terms: Terms = method(lesson)
    terms.loss().backward()
    assert logits.grad is not None
    return terms, logits.grad, sum(m.asked for m in people)


def same(method: Any, where: Tensor) -> tuple[int, int]:
    """Gated equals ungated in loss, gradient and record; returns what each asked."""
    method.setup(ClassInfo(tasks.create("classification"), ["a", "b", "c"], [0.5, 0.4, 0.3]))
    (whole, slope, all_asked), (gated, own, asked) = taught(method, None), taught(method, where)
    torch.testing.assert_close(gated.loss(), whole.loss())
    torch.testing.assert_close(own, slope)
    assert whole.weight is not None
    torch.testing.assert_close(gated.weight, whole.weight)
    assert gated.active is not None
    assert whole.active is not None
    assert torch.equal(gated.active, whole.active)
    return all_asked, asked


@pytest.mark.parametrize("divergence", ["kl", "dkd", "dist", "dtkd"])
@pytest.mark.parametrize("weighting", ["uniform", "entropy", "confidence", "gram", "random"])
def test_mentors_of_fewer_classes(weighting: str, divergence: str) -> None:
    method = methods.create("weighted", weighting=weighting, divergence=divergence)
    assert same(method, knows(KNOWN, C, TARGET)) == (3 * B, B + 5 + 6)


@pytest.mark.parametrize("divergence", ["kl", "dkd", "dtkd"])
def test_the_drawn_mentor_alone(divergence: str) -> None:
    method = methods.create("random", divergence=divergence)
    method.setup(ClassInfo(tasks.create("classification"), ["a", "b", "c"]))
    drawn = taught(method, None)[0].weight
    assert drawn is not None
    assert same(method, drawn.squeeze(-1) > 0) == (3 * B, B)


def test_classroomkd_by_sample() -> None:
    method = methods.create("classroomkd", rule="sample")
    assert same(method, knows(KNOWN, C, TARGET)) == (3 * B, B + 5 + 6)


@pytest.mark.parametrize("rule", ["batch", "rank"])
def test_scores_of_the_batch_may_not_be_gated(rule: str) -> None:
    """Why gating is a method's to allow: one NaN sample silences the mentor in the whole batch."""
    method = methods.create("classroomkd", rule=rule, gate="none")
    method.setup(ClassInfo(tasks.create("classification"), ["a", "b", "c"]))
    gated = taught(method, knows(KNOWN, C, TARGET))[0]
    assert gated.active is not None
    assert gated.active[0].all()
    assert not gated.active[1:].any()


# --- whole classrooms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "share"),
    [("random", 1 / 3), ("average", 0.8), ("classroomkd", 0.8), ("fitnet", None), ("camkd", None), ("dist", 0.8)],
)
def test_mentors_run_where_they_can_count_and_nothing_else_changes(method: str, share: float | None) -> None:
    torch.manual_seed(0)
    nets = [models.create("convnet4", num_classes=k) for k in (5, 2, 5)]
    mentors = [Mentor(nets[0], "a"), Mentor(nets[1], "b", classes=[0, 3], num_classes=5), Mentor(nets[2], "c")]
    student = models.create("convnet4", num_classes=5)
    room = Classroom(student, mentors, method, image_shape=(3, 16, 16))
    x, y, ids = torch.randn(50, 3, 16, 16), torch.arange(50) % 5, torch.arange(50)

    def taught() -> Lesson:
        """As our own training loop asks; a loop of one's own asks everybody about everything."""
        seen = room.collect(x, y, ids=ids, info=StepInfo(skip_rows=True))
        return seen.conclude(room.method(seen))

    lesson = taught()
    if share is None:
        assert room.mentors.answered == 150
        return
    assert room.mentors.answered == pytest.approx(150 * share if method != "random" else 50, abs=10)
    gated, room.method.eligible = room.method.eligible, lambda *_, **__: None  # type: ignore[method-assign]
    everybody = taught()
    assert room.mentors.answered > 150
    torch.testing.assert_close(lesson.loss, everybody.loss)
    assert lesson.active is not None
    assert everybody.active is not None
    assert torch.equal(lesson.active, everybody.active)
    assert gated is not None
    room.method.eligible, before = gated, room.mentors.answered  # type: ignore[method-assign]
    room(x, y, ids=ids)
    assert room.mentors.answered == before + 150
