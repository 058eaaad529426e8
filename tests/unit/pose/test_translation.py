"""Translations: what a mentor of another head, size or skeleton says, in the student's answer space."""

from __future__ import annotations

import math

import pytest
import torch
from pose_pieces import people

from classroomkd.data.skeleton import COCO, MPII, union
from classroomkd.errors import UserError
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.translation import Translation, region

SIZES = [((256, 192), (128, 96)), ((128, 96), (256, 192)), ((128, 96), (96, 128)), ((64, 64), (128, 96)),
         ((96, 128), (64, 64)), ((64, 48), (64, 48))]  # fmt: skip
HEADS = ["simcc", "mse", "kl"]


def make(head: str, size: tuple[int, int], joints: int = 17) -> Coding:
    return SimCC(size, joints) if head == "simcc" else Heatmap(size, joints, loss="kl" if head == "kl" else "mse")


def test_region() -> None:
    assert region((64, 48), (64, 48)) == (1, 0, 0)
    a, b_x, b_y = region((64, 64), (256, 192))
    assert a == pytest.approx(191 / 63)
    assert b_x == pytest.approx(0)
    assert b_y == pytest.approx((255 - 191) / 2)
    assert a * 31.5 + b_y == pytest.approx(127.5)  # the centres are one point
    a, b_x, b_y = region((128, 96), (96, 128))
    assert (a, b_x, b_y) == pytest.approx((95 / 127, (127 - 95 * 95 / 127) / 2, 0))


@pytest.mark.parametrize("own", HEADS)
@pytest.mark.parametrize("theirs", HEADS)
@pytest.mark.parametrize(("own_size", "their_size"), SIZES)
def test_perfect_mentor_is_perfect_in_translation(
    own: str, theirs: str, own_size: tuple[int, int], their_size: tuple[int, int]
) -> None:
    student, mentor = make(own, own_size), make(theirs, their_size)
    target = people(12, own_size, margin=own_size[0] / 8)
    a, b_x, b_y = region(own_size, their_size)
    seen = target.clone()
    seen[..., 0], seen[..., 1] = a * target[..., 0] + b_x, a * target[..., 1] + b_y
    level = 3.0 if theirs != "mse" else 0.0  # says nothing behind a softmax
    said = Translation(mentor, student)(mentor.ideal(seen) + level)
    assert tuple(said.shape[1:]) == student.answer_shape
    found = student.decode(said)
    off = (found[..., :2] - target[..., :2]).abs()
    assert off.max() <= (0.26 if own == "simcc" else 0.2)
    assert student.log_fit(said, target).min() > -0.05
    assert found[..., 2].min() > 0.7
    if own == "simcc":  # the marginals' means
        x, y = (torch.softmax(10 * part, -1) for part in student.parts(said))
        mean = torch.stack([p @ torch.arange(p.shape[-1]).float() / 2 for p in (x, y)], -1)
        assert (mean - found[..., :2]).abs().max() < 0.02 * own_size[0]


def test_unsure_mentors_stay_unsure() -> None:
    size = (128, 96)
    simcc, maps = SimCC(size, 17), Heatmap(size, 17)
    target = people(4, size, margin=16)
    faint = Translation(maps, simcc)(0.3 * maps.ideal(target))
    assert simcc.decode(faint)[..., 2].max() < 0.4
    entropy = torch.special.entr(torch.softmax(10 * faint, -1)).sum(-1)
    sure = Translation(maps, simcc)(maps.ideal(target))
    assert (entropy > torch.special.entr(torch.softmax(10 * sure, -1)).sum(-1) + 0.5).all()
    vague = Translation(simcc, maps)(0.3 * simcc.ideal(target))
    assert vague.amax((-2, -1)).max() < 0.5
    assert (Translation(simcc, maps)(torch.zeros(1, *simcc.answer_shape)) < 0.05).all()


def test_simcc_to_heatmap_is_the_mean_target() -> None:
    simcc, maps = SimCC((64, 64), 1), Heatmap((64, 64), 1)
    said = torch.full((1, 1, 256), -50.0)
    said[..., [20, 80]] = torch.tensor([0.0, 0.0])  # x: 10 or 40 px
    said[..., 128 + 60] = 0.0  # y: 30 px
    targets = torch.tensor([[[10.0, 30.0, 2.0]], [[40.0, 30.0, 2.0]]])
    assert torch.allclose(Translation(simcc, maps)(said)[0], maps.ideal(targets).mean(0), atol=1e-4)


def test_identity_passes_the_same_tensor() -> None:
    for head in HEADS:
        coding = make(head, (64, 48))
        same = Translation(coding, make(head, (64, 48)))
        said = torch.randn(2, *coding.answer_shape)
        assert same.identity
        assert same(said) is said
        assert not list(same.state_dict())
    assert Translation(make("mse", (64, 48)), make("kl", (64, 48))).identity
    assert not Translation(make("kl", (64, 48)), make("mse", (64, 48))).identity


def test_sharpness_of_another_beta() -> None:
    hard, soft = SimCC((64, 48), 3, beta=10.0), SimCC((64, 48), 3, beta=1.0)
    said = torch.randn(2, 3, 224)
    translated = Translation(soft, hard)(said)
    for own, theirs in zip(hard.distributions(translated), soft.distributions(said), strict=True):
        assert torch.allclose(torch.softmax(own, -1), torch.softmax(theirs, -1), atol=1e-5)


def test_other_skeleton() -> None:
    both = union(COCO, MPII)
    student = SimCC((64, 64), len(both))
    seen = []
    for skeleton in (COCO, MPII):
        mentor = Heatmap((64, 64), len(skeleton))
        target = people(3, (64, 64), len(both), margin=10)
        places = both.places(skeleton)
        order = torch.tensor([both.joints.index(j) for j in skeleton.joints])
        said = Translation(mentor, student, places)(mentor.ideal(target[:, order]))
        unknown, broken = student.state(said)
        assert unknown.tolist() == [[p is None for p in places]] * 3
        assert not broken.any()
        known = ~unknown
        assert (student.decode(said)[..., :2] - target[..., :2])[known].abs().max() < 0.3
        seen.append(known)
    assert (seen[0] | seen[1]).all()


def test_precision_and_nan_stay_where_they_are() -> None:
    maps, simcc = Heatmap((64, 64), 3), SimCC((128, 96), 3)
    said = maps.ideal(people(2, (64, 64), 3))
    said[0, 1, 2, 2] = torch.nan
    for half in (torch.bfloat16, torch.float16):
        translated = Translation(maps, simcc)(said.to(half))
        assert translated.dtype == half
    _, broken = simcc.state(translated)
    assert broken.tolist() == [[False, True, False], [False, False, False]]
    plain, alone = Translation(maps, simcc)(said)[1:], Translation(maps, simcc)(said[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The same products of the same shapes on one machine: the same bits, since autocast is off inside.
        assert torch.equal(Translation(maps, simcc)(said)[1:], plain)
    # A batch of another size may be summed in another order. Values are the exponential of `power` times a sum of 16
    # logarithms of at most log 1000, times weights of at most 1.25 in all: each order is off by at most 16 roundings.
    order = 2 * 16 * torch.finfo(torch.float32).eps / 2 * 1.25 * math.log(1000) * max(Translation(maps, simcc).power)
    torch.testing.assert_close(alone, plain, rtol=0, atol=2 * order)  # a row's highest value moves as well


@pytest.mark.parametrize("theirs", HEADS)
@pytest.mark.parametrize("own", HEADS)
def test_gradients_flow_to_the_answer(theirs: str, own: str) -> None:
    mentor, student = make(theirs, (64, 64), 3), make(own, (128, 96), 4)
    said = (mentor.ideal(people(2, (64, 64), 3)) + 0.1).requires_grad_()
    translated = Translation(mentor, student, [2, None, 1, 0])(said)
    translated.where(translated > -torch.inf, 0.0).square().sum().backward()
    assert said.grad is not None
    assert said.grad.isfinite().all()
    assert (said.grad.flatten(2).abs().sum(-1) > 0).all()


def test_joints_that_do_not_fit() -> None:
    sixteen, seventeen = SimCC((64, 64), 16), SimCC((64, 64), 17)
    with pytest.raises(UserError, match="mentor 'a' answers 16 joints, the student 17"):
        Translation(sixteen, seventeen, where="mentor 'a'")
    with pytest.raises(UserError, match="does not fit"):
        Translation(sixteen, seventeen, [16] * 17)
    with pytest.raises(UserError, match="none of"):
        Translation(sixteen, seventeen, [None] * 17)
