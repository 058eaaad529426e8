"""Samples without a label: what the task says of them, and a classroom in a loop of one's own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd import methods
from classroomkd.classroom import Answers, Lesson, Mentor, PlainContext
from classroomkd.classroom.gating import knows
from classroomkd.classroom.outliers import Outliers
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.functional import vote_entropy
from classroomkd.tasks.classification.task import Classification
from classroomkd.train.meter import Record

B, C, M = 6, 4, 3
MIXED = torch.tensor([0, UNLABELLED, 3, UNLABELLED, 1, 2])
LABELLED = torch.tensor([0, 2, 3, 1, 1, 2])
TASK = Classification(unlabelled=True)


def answers(seed: int = 0) -> Tensor:
    return torch.randn(M, B, C, generator=torch.Generator().manual_seed(seed))


def nets(count: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(12, C)) for _ in range(count)]


def images() -> Tensor:
    return torch.randn(B, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_no_class_is_made_up() -> None:
    answer = answers()[0].requires_grad_()
    loss = TASK.supervised(answer, MIXED)
    loss.sum().backward()
    there = MIXED >= 0
    assert torch.equal(TASK.mask(MIXED).squeeze(1), there)
    assert TASK.distill_mask(MIXED).all()
    assert (loss[~there] == 0).all()
    assert answer.grad is not None
    assert (answer.grad[~there] == 0).all()
    assert torch.equal(loss[there], Classification().supervised(answer, LABELLED)[there])
    assert not TASK.mistaken(answer, MIXED)[~there].any()
    assert int(TASK.unit_labels(MIXED).min()) >= 0
    assert int(TASK.labels(MIXED)[0].min()) >= 0


def test_nothing_speaks_against_an_answer_that_cannot_be_judged_unless_it_is_not_finite() -> None:
    said = answers()
    said[1, 1], said[2, 3] = torch.nan, torch.tensor([-torch.inf, 0, 0, 0])
    log = TASK.log_credibility(said, MIXED).squeeze(-1)
    assert log[1, 1].isnan()
    assert log[2, 3] == 0  # class 0 stands in for no label, and this mentor rules it out
    assert log[0, 1] == log[0, 3] == 0
    assert torch.equal(log[:, MIXED >= 0], Classification().log_credibility(said, LABELLED).squeeze(-1)[:, MIXED >= 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labelled_samples_have_the_bits_they_had(smoothing: float) -> None:
    one, other = Classification(smoothing), Classification(smoothing, unlabelled=True)
    for ask in ("supervised", "log_credibility", "mistaken"):
        found = [getattr(task, ask)(answers()[0], LABELLED) for task in (one, other)]
        assert torch.equal(*found)
    assert torch.equal(other.agreed(answers(), LABELLED), LABELLED)


def test_mentors_agree_on_the_class_of_their_mean_probability() -> None:
    said = answers()
    said[2, 1] = torch.nan
    said[:, 3] = torch.nan
    found = TASK.agreed(said, MIXED)
    assert torch.equal(found[MIXED >= 0], MIXED[MIXED >= 0])
    assert found[1] == said[:2, 1].softmax(-1).mean(0).argmax()
    assert found[3] == UNLABELLED  # nobody's answer is finite
    assert torch.equal(Classification().agreed(said, MIXED), MIXED)  # without the switch the target as it is
    sure = torch.tensor([[8.0, 0, 0], [0, 1, 0], [0, 1, 0]]).unsqueeze(1)  # one sure mentor against two that lean
    assert TASK.agreed(sure, torch.tensor([-1])).item() == 0


def test_a_refused_label_names_the_remedy() -> None:
    with pytest.raises(UserError, match=r"labels go from -1 to 3.*unlabelled=True"):
        Classification().check(answers()[0], MIXED)
    TASK.check(answers()[0], MIXED)
    with pytest.raises(UserError, match="labels go from -2"):
        TASK.check(answers()[0], MIXED - 1)
    with pytest.raises(UserError, match="to 4"):
        TASK.check(answers()[0], LABELLED + 1)


def test_a_lesson_finds_the_vote_once_and_anew_for_other_mentors() -> None:
    lesson = Lesson(images(), MIXED, Answers(answers(1)[0]), Answers(answers()), TASK)
    assert lesson.agreed is lesson.agreed
    alone = replace(lesson, mentors=Answers(answers()[:1]))
    assert torch.equal(alone.agreed, torch.where(MIXED < 0, answers()[0].argmax(-1), MIXED))
    assert torch.equal(replace(lesson, mentors=None).agreed, MIXED)
    relabelled = replace(lesson, target=LABELLED)  # what was found is of another target
    assert torch.equal(relabelled.agreed, LABELLED)


def test_a_specialist_is_asked_about_what_nobody_labelled() -> None:
    known = knows([None, (0, 1)], C, torch.tensor([UNLABELLED, 0, 3]))
    assert known.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("method", ["classroomkd", "average", "none"])
def test_a_loop_of_ones_own(method: str) -> None:
    student, *mentors = nets(3)
    room = ck.Classroom(student, mentors, method, unlabelled=True)
    optimizer = torch.optim.SGD(room.parameters(), lr=0.1)
    context = PlainContext(room, optimizer)
    before = [p.detach().clone() for p in student.parameters()]
    assert room(images(), MIXED).loss.isfinite()
    lesson = room.method.step(context, {"inputs": images()})  # nothing of the batch is labelled
    assert torch.equal(lesson.target, torch.full((B,), UNLABELLED))
    assert lesson.terms["supervised"] == 0
    assert lesson.loss.isfinite()
    moved = any(not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))
    assert moved == (method != "none")


def test_every_sample_of_a_batch_counts_the_same() -> None:
    """A label's loss is as loud as one sample's, however few have one: two labels are not as loud as sixty pictures."""
    student, *mentors = nets(3)
    labelled = int((MIXED >= 0).sum())
    assert 0 < labelled < B
    room = ck.Classroom(student, mentors, "average", unlabelled=True)
    lesson = room(images(), MIXED)
    own = TASK.supervised(lesson.student.prediction, MIXED).sum() / B
    torch.testing.assert_close(lesson.loss, own + lesson.terms["distilled"])
    both = ck.Classroom(student, mentors, methods.compose([("average", {}), ("kd", {})]), unlabelled=True)
    lesson = both(images(), MIXED)
    torch.testing.assert_close(lesson.loss, own + lesson.terms["distilled"] + 0.9 * lesson.terms["kd.distilled"])
    whole = ck.Classroom(student, mentors, "average", unlabelled=True)(images(), LABELLED)
    assert torch.equal(whole.loss, ck.Classroom(student, mentors, "average")(images(), LABELLED).loss)


@pytest.mark.parametrize(
    ("name", "options"), [("none", {}), ("dkd", {"schedule": "constant"}), ("weighted", {"weighting": "confidence"})]
)
def test_where_nobody_teaches_the_others_a_batch_is_its_labelled_samples(name: str, options: dict[str, str]) -> None:
    """Neither the student alone, nor own loss and mentors where both see these alone, get louder or softer."""
    student, *mentors = nets(3)
    there = MIXED >= 0
    room = ck.Classroom(student, mentors, methods.create(name, **options), unlabelled=True)
    torch.testing.assert_close(room(images(), MIXED).loss, room(images()[there], MIXED[there]).loss)


def test_each_of_several_trainees_counts_its_labels_so() -> None:
    student, twin, *_ = nets(3)
    lesson = ck.Classroom(student, (), "dml", peers={"b": twin}, unlabelled=True)(images(), MIXED)
    own = sum(TASK.supervised(one.prediction, MIXED).sum() for one in lesson.trainees) / B
    torch.testing.assert_close(lesson.loss, own + lesson.terms["mutual"] + lesson.terms["b.mutual"])


def test_a_loop_is_told_how_to_teach_without_labels() -> None:
    student, *mentors = nets(3)
    with pytest.raises(UserError, match=r"unlabelled=True"):
        ck.Classroom(student, mentors)(images())
    with pytest.raises(UserError, match=r"unlabelled=True"):
        ck.Classroom(student, mentors)(images(), MIXED)
    with pytest.raises(UserError, match="say it to the task"):
        ck.Classroom(student, mentors, task=Classification(), unlabelled=True)
    with pytest.raises(UserError, match="the target is a list"):
        ck.Classroom(student, mentors)(images(), [1, 2])  # type: ignore[arg-type]
    ck.Classroom(student, mentors, task=Classification(unlabelled=True), unlabelled=True)


def test_a_mentor_that_rules_the_vote_out_is_not_heard() -> None:
    student, whole = nets(2)
    part = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        whole[1].bias[3] += 20.0  # sure of a class that the specialist does not know
    room = ck.Classroom(
        student,
        [whole, Mentor(part, "part", classes=(0, 1), num_classes=C)],
        "average",
        unlabelled=True,
    )
    lesson = room(images())
    assert lesson.active is not None
    assert lesson.active[0].all()
    assert not lesson.active[1].any()
    assert lesson.loss.isfinite()


def test_what_no_mentor_knows_counts_less() -> None:
    said = torch.zeros(M, B, C)
    said[:, 0, 0] = said[:, 1, 2] = 9.0  # sure; of the others nobody knows anything
    weigh = Outliers(TASK, 0.9, 0.1)
    weight = weigh(Answers(said), MIXED)
    assert weight is not None
    torch.testing.assert_close(weight, torch.tensor([1.0, 1.0, 1.0, 0.1, 1.0, 1.0]))  # labelled ones count whole
    assert Outliers(Classification(), 0.9, 0.1)(Answers(said), LABELLED) is None
    said[:, 3] = torch.nan  # nobody teaches it anyway
    assert torch.equal(weigh(Answers(said), MIXED), torch.ones(B))  # type: ignore[arg-type]


def test_entropy_is_a_share_of_the_largest() -> None:
    even, sure = torch.full((1, C), 1 / C), torch.eye(C)[:1]
    torch.testing.assert_close(vote_entropy(torch.cat([even, sure])), torch.tensor([1.0, 0.0]))
    half = torch.tensor([[0.5, 0.5, 0, 0]])
    torch.testing.assert_close(vote_entropy(half), torch.tensor([math.log(2) / math.log(4)]))
    assert vote_entropy(torch.ones(1, 1)).item() == 0


def test_a_mean_over_samples_is_weighted() -> None:
    values, units = torch.arange(B, dtype=torch.float32).unsqueeze(1), torch.ones(B, 1, dtype=torch.bool)
    units[0] = False
    weight = torch.tensor([1.0, 1.0, 0.1, 1.0, 0.1, 1.0])
    lesson = Lesson(images(), MIXED, Answers(answers()[0]), None, TASK, sample_weight=weight)
    found = lesson.mean(values, units)
    torch.testing.assert_close(found, (weight * values.squeeze(1))[1:].sum() / weight[1:].sum())
    values[0] = torch.nan
    assert torch.equal(lesson.mean(values, units), found)


def test_a_classroom_weighs_down_what_nobody_knows() -> None:
    student, *mentors = nets(3)
    for mentor in mentors:
        nn.init.zeros_(mentor[1].weight), nn.init.zeros_(mentor[1].bias)
    x, target = images(), MIXED
    plain = ck.Classroom(student, mentors, "average", unlabelled=True)(x, target)
    room = ck.Classroom(student, mentors, "average", unlabelled=True, outliers=0.8, outlier_weight=0.0)
    weighed = room(x, target)
    assert plain.sample_weight is None
    assert torch.equal(weighed.sample_weight, (target >= 0).float())  # type: ignore[arg-type]
    torch.testing.assert_close(weighed.terms["supervised"], plain.terms["supervised"])
    labelled = ck.Classroom(student, mentors, "average")(x[target >= 0], target[target >= 0])
    torch.testing.assert_close(weighed.terms["distilled"], labelled.terms["distilled"])


@pytest.mark.parametrize(("bound", "weight", "said"), [(0.0, 0.1, "share"), (1.5, 0.1, "share"), (0.5, 2, "lies")])
def test_numbers_out_of_range(bound: float, weight: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Outliers(TASK, bound, weight)


def recorded(record: Record, room: ck.Classroom, target: Tensor) -> None:
    record.add(room(images(), target))


def test_what_counts_less_is_counted_over_a_resume() -> None:
    student, *mentors = nets(3)
    for mentor in mentors:
        nn.init.zeros_(mentor[1].weight), nn.init.zeros_(mentor[1].bias)
    room = ck.Classroom(student, mentors, "average", unlabelled=True, outliers=0.8)
    record = Record(2, C, torch.device("cpu"))
    recorded(record, room, MIXED)
    line = record.flush()["mentors"]
    assert line["outliers"] == 2
    recorded(record, room, torch.full((B,), UNLABELLED))
    again = Record(2, C, torch.device("cpu"))
    again.load_state_dict(record.state_dict())
    assert again.flush()["mentors"]["outliers"] == B
    assert again.teaching(["a", "b"], list("wxyz"))["outliers"] == 2 + B


def test_who_taught_what_files_unlabelled_samples_under_the_vote() -> None:
    student, *mentors = nets(3)
    with torch.no_grad():
        for mentor in mentors:
            mentor[1].bias[2] += 30.0
    record = Record(2, C, torch.device("cpu"))
    recorded(record, ck.Classroom(student, mentors, "average", unlabelled=True), MIXED)
    record.flush()
    said = record.teaching(["a", "b"], list("wxyz"))
    assert said["count"] == [1, 1, 3, 1]  # two of them have no label
    assert "outliers" not in said
