"""Persons without joints: what the pose task says of them, how views move them, and a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import classroomkd as ck
from classroomkd.classroom import Answers, PlainContext, Task
from classroomkd.classroom.outliers import Outliers
from classroomkd.data.skeleton import COCO, Skeleton
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.models.pose import resolve_pose
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC, coding_of
from classroomkd.tasks.pose.task import Pose

B, K, SIZE = 4, 3, (32, 24)
THREE = Skeleton("three", ("nose", "left_hand", "right_hand"), (), (0.079,) * K, ((1, 2),), ())
CODINGS: list[Coding] = [SimCC(SIZE, K), Heatmap(SIZE, K, stride=2), Heatmap(SIZE, K, stride=2, loss="kl")]
every = pytest.mark.parametrize("coding", CODINGS, ids=["simcc", "mse", "kl"])


def people() -> Tensor:
    """Persons 1 and 3 have no joints; person 0 lacks one."""
    draw = torch.Generator().manual_seed(0)
    target = torch.cat([3 + 17 * torch.rand(B, K, 2, generator=draw), torch.full((B, K, 1), 2.0)], -1)
    target[0, 1] = 0
    target[1::2] = torch.tensor([0.0, 0.0, UNLABELLED])
    return target


def places() -> Tensor:
    """Where the mentors see every joint."""
    draw = torch.Generator().manual_seed(1)
    return torch.cat([3 + 17 * torch.rand(B, K, 2, generator=draw), torch.ones(B, K, 1)], -1)


def test_nothing_of_a_person_without_joints_is_taught_as_true() -> None:
    for coding in CODINGS:
        task, target = Pose(coding, THREE, unlabelled=True), people()
        answer = coding.ideal(places()).requires_grad_()
        loss = task.supervised(answer, target)
        loss.sum().backward()
        assert answer.grad is not None
        assert (loss[1::2] == 0).all()
        assert (answer.grad[1::2] == 0).all()
        assert (task.log_credibility(answer.detach(), target)[1::2] == 0).all()
        assert not task.mask(target)[1::2].any()
        assert not task.mistaken(answer.detach(), target)[1::2].any()
        assert int(task.labels(target)[0].min()) >= 0
        sparse = Pose(coding, THREE, distil_hidden=False, unlabelled=True)
        assert task.distill_mask(target).all()
        assert sparse.distill_mask(target).sum() == B * K - 1  # the missing joint of person 0
        task.check(answer.detach(), target)


@every
def test_mentors_agree_on_the_place_of_their_mean(coding: Coding) -> None:
    task, target, where = Pose(coding, THREE, unlabelled=True), people(), places()
    said = torch.stack([coding.ideal(where)] * 3)
    found = task.agreed(said, target)
    assert torch.equal(found[::2], target[::2])  # a labelled person's joints stay, the missing one too
    assert (found[1::2, :, 2] == 2).all()
    assert (found[1::2, :, :2] - where[1::2, :, :2]).norm(dim=-1).max() < 0.5
    assert task.mask(found)[1::2].all()
    assert task.log_credibility(said, found)[:, 1::2].min() > -0.5
    assert torch.equal(Pose(coding, THREE).agreed(said, target), target)  # without the switch the target as it is


@every
def test_one_that_is_far_off_is_outvoted_and_less_credible(coding: Coding) -> None:
    task, where = Pose(coding, THREE, unlabelled=True), places()
    off = where.clone()
    off[..., :2] = 23 - off[..., :2]
    said = torch.stack([coding.ideal(where), coding.ideal(where), coding.ideal(off)])
    target = people()
    found = task.agreed(said, target)
    far = (off - where)[..., :2].norm(dim=-1) > 8
    assert far[1::2].any()
    assert (found[1::2, :, :2] - where[1::2, :, :2]).norm(dim=-1)[far[1::2]].max() < 1
    log = task.log_credibility(said, found)
    assert (log[2] < log[0])[1::2][far[1::2]].all()


@every
def test_whoever_does_not_know_or_is_not_finite_has_no_say(coding: Coding) -> None:
    task, where = Pose(coding, THREE, unlabelled=True), places()
    ideal = coding.ideal(where)
    said = torch.stack([ideal, ideal.flip(-1), ideal.flip(-1)])
    said[1], said[2, :, 0], said[2, :, 1:] = torch.nan, -torch.inf, torch.inf
    found = task.agreed(said, people())
    assert (found[1::2, :, :2] - where[1::2, :, :2]).norm(dim=-1).max() < 0.5
    said[0, :, 2] = -torch.inf  # nobody knows the last joint
    found = task.agreed(said, people())
    assert torch.equal(found[1, 2], torch.tensor([0.0, 0.0, UNLABELLED]))
    assert not task.mask(found)[1, 2]
    assert task.certainty(said)[1, 2].isnan()
    assert task.doubts(said).isfinite().all()
    nobody = torch.full_like(said, torch.nan)
    assert torch.equal(task.agreed(nobody, people()), people())
    assert task.doubts(nobody).isnan().all()


@every
def test_an_agreed_place_is_within_the_crop(coding: Coding) -> None:
    where = torch.tensor([[0.0, 0.0, 1], [23.4, 31.4, 1], [23.0, 0.0, 1]]).expand(B, K, 3)
    task = Pose(coding, THREE, unlabelled=True)
    assert task.mask(task.agreed(coding.ideal(where).unsqueeze(0), people()))[1::2].all()


def test_one_credibility_for_a_person_is_the_mean_over_agreed_joints() -> None:
    coding = CODINGS[0]
    task = Pose(coding, THREE, per="person", unlabelled=True)
    said = torch.randn(2, B, *coding.answer_shape, generator=torch.Generator().manual_seed(2))
    found = task.agreed(said, people())
    one = task.log_credibility(said, found)
    each = Pose(coding, THREE, unlabelled=True).log_credibility(said, found)
    torch.testing.assert_close(one[:, 1, 0], each[:, 1].mean(-1))


def test_what_no_mentor_knows_counts_less() -> None:
    coding = CODINGS[1]
    task = Pose(coding, THREE, unlabelled=True)
    said = torch.stack([coding.ideal(places())] * 2)
    said[:, 3] *= 0.1  # low peaks
    said[:, 0] *= 0.1  # a person with joints
    target = people()
    target[0, :, 2] = 0  # whose joints nobody could see
    weight = Outliers(task, 0.8, 0.25)(Answers(said), target)
    assert weight is not None
    assert weight.tolist() == [1.0, 1.0, 1.0, 0.25]


def test_a_mark_that_is_wrong_is_refused() -> None:
    coding = CODINGS[0]
    answer = coding.ideal(places())
    with pytest.raises(UserError, match=r"visibility is -1.*unlabelled=True"):
        Pose(coding, THREE).check(answer, people())
    half = people()
    half[1, 0, 2] = 0
    with pytest.raises(UserError, match="at all of them"):
        Pose(coding, THREE, unlabelled=True).check(answer, half)
    half[1, 0, 2] = 3
    with pytest.raises(UserError, match="visibility"):
        Pose(coding, THREE, unlabelled=True).check(answer, half)


def loaded() -> ck.data.ImageSet:
    return ck.data.load({"source": "puppets", "size": [32, 24], "options": {"train": 20, "test": 20}}, task="pose")


@pytest.mark.parametrize("name", ["person", "person_flip", "none"])
def test_views_keep_the_mark_and_do_not_look_at_joints_that_are_not_there(name: str) -> None:
    images = loaded()
    views = ck.data.make_views(name, view_seed=3, image_size=(32, 24), images=images)
    canvases, target, ids = images.train.batch(torch.arange(12))
    bare = torch.zeros_like(target)
    bare[..., 2] = UNLABELLED
    shown = views.pick(5, ids, epoch=0)
    for seen in (
        views.render(canvases, bare, ids, shown)[1],
        views.render(canvases, bare, ids, shown, (48, 48))[1],
        views.eval_view(canvases, bare)[1],
        views.eval_view(canvases, bare, (48, 48))[1],
    ):
        assert torch.equal(seen, bare)
    zero = views.render(canvases, torch.zeros_like(target), ids, shown)
    assert torch.equal(zero[0], views.render(canvases, bare, ids, shown)[0])
    assert torch.equal(zero[1], torch.zeros_like(target))


def coded(network: torch.nn.Module) -> Coding:
    with torch.no_grad():
        return coding_of(network, network.eval()(torch.zeros(1, 3, 32, 32)), (32, 32))


@pytest.mark.parametrize("method", ["classroomkd", "average", "votes", "none"])
def test_a_loop_of_ones_own(method: str) -> None:
    torch.manual_seed(0)
    student, *mentors = (resolve_pose("simcc_tiny", 17, (32, 32)) for _ in range(3))
    task: Task = Pose(coded(student), COCO, unlabelled=True)
    room = ck.Classroom(student.train(), mentors, method, task=task, unlabelled=True)
    context = PlainContext(room, torch.optim.SGD(room.parameters(), lr=0.1))
    before = [p.detach().clone() for p in student.parameters()]
    lesson = room.method.step(context, {"inputs": torch.rand(4, 3, 32, 32)})
    assert torch.equal(lesson.target[..., 2], torch.full((4, 17), float(UNLABELLED)))
    assert lesson.terms["supervised"] == 0
    assert lesson.loss.isfinite()
    moved = any(not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))
    assert moved == (method != "none")


def test_a_loop_is_told_how_to_teach_without_joints() -> None:
    student, mentor = (resolve_pose("simcc_tiny", 17, (32, 32)) for _ in range(2))
    room = ck.Classroom(student.train(), [mentor], "average", task=Pose(coded(student), COCO))
    with pytest.raises(UserError, match="unlabelled=True"):
        room(torch.rand(2, 3, 32, 32), None)


@pytest.mark.parametrize("ask", ["supervised", "log_credibility", "mask", "distill_mask", "mistaken"])
def test_labelled_people_have_the_bits_they_had(ask: str) -> None:
    for coding in CODINGS:
        plain = people()
        plain[1::2, :, 2] = 0  # no joint has a label, but nobody has said that the person has none
        answer = coding.ideal(places()) + 0.1
        calls: list[Callable[..., Tensor]] = [getattr(Pose(coding, THREE, unlabelled=u), ask) for u in (False, True)]
        given = (plain,) if ask.endswith("mask") else (answer, plain)
        assert torch.equal(calls[0](*given), calls[1](*given))
        assert torch.equal(Pose(coding, THREE, unlabelled=True).agreed(answer.unsqueeze(0), plain), plain)


def test_a_mean_of_heatmaps_is_that_of_several() -> None:
    for coding in CODINGS:
        draw = torch.Generator().manual_seed(4)
        answers = torch.randn(3, B, *coding.answer_shape, generator=draw)
        counts = torch.ones(3, B, K, dtype=torch.bool)
        torch.testing.assert_close(coding.pooled(answers, counts), coding.mean(list(answers)))
    assert replace(CODINGS[1], loss="kl") == CODINGS[2]
