"""Codings: round trips, identities of losses and fits, mirrors, what a network's answer is taken for."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
import torch
from pose_pieces import answers, people
from torch import nn

from classroomkd.data.skeleton import COCO
from classroomkd.errors import UserError
from classroomkd.functional import simcc
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC, coding_of, from_plain

SIZE = (256, 192)
CODINGS = [
    SimCC(SIZE, 17),
    SimCC((64, 48), 17, split=3.0, beta=5.0),
    Heatmap(SIZE, 17),
    Heatmap((96, 96), 17, stride=3, loss="kl"),
    Heatmap((64, 64), 17, decoder="argmax"),
    Heatmap(SIZE, 17, aligned="stride"),
    Heatmap((64, 64), 17, aligned="stride", loss="kl"),
]
each = pytest.mark.parametrize("coding", CODINGS, ids=str)


# The spec's table (192 x 256), in pixels; UDP cells are 4.06 px and not 4.
@pytest.mark.parametrize(
    ("options", "mean", "p95"),
    [({"rounded": True, "decoder": "argmax"}, 1.55, 2.42), ({"rounded": True, "decoder": "quarter"}, 1.55, 2.42),
     ({"decoder": "quarter"}, 0.78, 1.22), ({}, 0.0, 0.0), ({"split": 1.0}, 0.383, 0.60), ({"split": 2.0}, 0.191, 0.30),
     ({"split": 3.0}, 0.128, 0.20)],
)  # fmt: skip
def test_round_trip(options: dict[str, Any], mean: float, p95: float) -> None:
    coding: Coding = SimCC(SIZE, 17, **options) if "split" in options else Heatmap(SIZE, 17, **options)
    target = people(150, SIZE, margin=24)
    found = coding.decode(coding.ideal(target))
    far = (found[..., :2] - target[..., :2]).norm(dim=-1)
    assert far.mean().item() == pytest.approx(mean, abs=0.02)
    assert far.flatten().quantile(0.95).item() == pytest.approx(p95, abs=0.03)
    assert found[..., 2].min() > 0.9


@each
def test_ideal_answer_fits(coding: Coding) -> None:
    target = people(20, coding.size, margin=coding.size[0] / 8)
    ideal = coding.ideal(target)
    assert tuple(ideal.shape[1:]) == coding.answer_shape
    assert coding.supervised(ideal, target).abs().max() < 1e-4
    fit = coding.log_fit(ideal, target, COCO.sigmas)
    exact = not (isinstance(coding, Heatmap) and coding.decoder == "argmax")
    assert fit.max() <= 0
    assert fit.min() > (-0.01 if exact else -3)
    worse = coding.log_fit(answers(coding, target + torch.tensor([9.0, 0, 0])), target, COCO.sigmas)
    assert worse.mean() < fit.mean() - 0.1


@each
def test_labels_are_the_peaks_of_ideal_distributions(coding: Coding) -> None:
    target = people(20, coding.size)
    for label, logits in zip(coding.labels(target), coding.distributions(coding.ideal(target)), strict=True):
        assert label.dtype == torch.int64
        tied = logits.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(tied, logits.amax(-1), atol=1e-3)
    far_out = torch.tensor([[[-500.0, 900.0, 2.0]] * 17])
    for label, logits in zip(coding.labels(far_out), coding.distributions(coding.ideal(far_out)), strict=True):
        assert ((label >= 0) & (label < logits.shape[-1])).all()


def test_simcc_losses_by_definition() -> None:
    coding = SimCC((64, 48), 3)
    target = people(4, coding.size, 3)
    said = answers(coding, target)
    label = coding.ideal(target)
    expected = torch.zeros(4, 3)
    for part, wanted in zip(coding.parts(said), coding.parts(label), strict=True):
        p = torch.softmax(10 * wanted, -1)
        expected += (p * (p.log() - torch.log_softmax(10 * part, -1))).sum(-1)
    assert torch.allclose(coding.supervised(said, target), expected, atol=1e-5)
    assert torch.allclose(coding.log_fit(said, target), -expected / 2, atol=1e-5)
    # A mentor that is the label: its divergence is the supervised loss; at another temperature it is that of both / T.
    assert torch.allclose(coding.divergence(said, label[None], 1.0)[0], expected, atol=1e-5)
    hot = coding.divergence(said, label[None], 4.0)[0]
    assert torch.allclose(hot, SimCC((64, 48), 3, beta=2.5).divergence(said, label[None], 1.0)[0], atol=1e-5)


def test_heatmap_losses_by_definition() -> None:
    coding = Heatmap(SIZE, 3)
    target = people(4, SIZE, 3, margin=30)
    said, label = answers(coding, target), coding.ideal(target)
    mse = (said - label).square().mean((-2, -1))
    assert torch.allclose(coding.supervised(said, target) * torch.pi * 4 / (64 * 48), 0.5 * mse, rtol=1e-4)
    assert coding.supervised(torch.zeros_like(said), target) == pytest.approx(torch.full((4, 3), 0.5), abs=1e-3)
    at_two = coding.divergence(said, label[None], 2.0)
    assert torch.allclose(4 * at_two[0], coding.supervised(said, target))
    each_one = torch.tensor([1.0, 2.0, 4.0]).expand(1, 4, 3)
    assert torch.allclose(coding.divergence(said, label[None], each_one)[0, :, 1], at_two[0, :, 1])
    scaled = Heatmap(SIZE, 3, loss="kl")
    assert torch.allclose(
        scaled.divergence(said, label[None], 1.0)[0], scaled.supervised(said, target), rtol=1e-4, atol=1e-5
    )


def test_heatmap_fit_is_the_oks_kernel() -> None:
    coding = Heatmap(SIZE, 17)
    target = people(5, SIZE, margin=40)
    moved = target + torch.tensor([3.0, -4.0, 0.0])
    k = 2 * torch.tensor(COCO.sigmas)
    expected = -25 / (2 * 0.21 * 256 * 192 * k.square())
    assert torch.allclose(coding.log_fit(coding.ideal(moved), target, COCO.sigmas), expected.expand(5, 17), rtol=0.01)


@each
def test_gradients_are_finite_and_divergence_zero_on_itself(coding: Coding) -> None:
    target = people(3, coding.size)
    own = answers(coding, target).requires_grad_()
    theirs = answers(coding, target, mentors=2, seed=1)
    theirs[1, :, 4] = -torch.inf
    temperature = torch.full((2, 3, 17), 3.0)
    far = coding.divergence(own, theirs, temperature)
    assert far.shape == (2, 3, 17)
    assert torch.equal(far[1, :, 4], torch.zeros(3))
    assert (far[0] > 0).all()
    (far.sum() + coding.supervised(own, target).sum()).backward()
    assert own.grad is not None
    assert own.grad.isfinite().all()
    assert own.grad.abs().sum() > 0
    assert coding.divergence(own, own.detach()[None], 4.0).abs().max() < 1e-5


@each
def test_unknown_and_broken_joints(coding: Coding) -> None:
    target = people(2, coding.size)
    said = answers(coding, target, mentors=2)
    said[0, 0, 1], said[0, 1, 2] = -torch.inf, torch.inf
    said[1, 0, 3].view(-1)[5] = torch.nan
    fit = coding.log_fit(said, target)
    assert fit[0, 0, 1] == -torch.inf
    assert fit[0, 1, 2].isnan()
    assert fit[1, 0, 3].isnan()
    assert fit.isfinite().sum() == fit.numel() - 3
    assert all(logits[0, 0, 1].isfinite().all() for logits in coding.distributions(said))
    found = coding.decode(said)
    assert found[0, 0, 1, 2] == 0
    assert found[0, 0, 1].isfinite().all()


@each
def test_flip(coding: Coding) -> None:
    target = people(6, coding.size, margin=coding.size[0] / 8)
    mirror = target[:, COCO.swap, :].clone()
    mirror[..., 0] = coding.size[1] - 1 - mirror[..., 0]
    back = coding.flipped(coding.ideal(mirror), COCO.swap)
    found = coding.decode(back)[..., :2]
    straight = coding.decode(coding.ideal(target))[..., :2]
    step = 1 / coding.split if isinstance(coding, SimCC) else 0.05
    if isinstance(coding, Heatmap) and coding.decoder == "argmax":
        step = 1.01 * max(coding.spacing)  # a tie may fall to the other cell
    assert (found - straight).abs().max() <= step + 1e-4
    both = coding.decode(coding.mean([coding.ideal(target), back]))[..., :2]
    assert (both - straight).abs().max() <= step + 1e-4


@pytest.mark.parametrize("aligned", ["udp", "stride"])
@pytest.mark.parametrize("size", [SIZE, (64, 64)])
def test_flip_test_of_a_perfect_network(size: tuple[int, int], aligned: Literal["udp", "stride"]) -> None:
    """Joints anywhere in the crop; maps with cells at multiples of the stride were 3 px aside, to the left."""
    coding, target = Heatmap(size, 17, aligned=aligned), people(40, size)
    mirror = target[:, COCO.swap, :].clone()
    mirror[..., 0] = size[1] - 1 - mirror[..., 0]
    back = coding.flipped(coding.ideal(mirror), COCO.swap)
    for answer in (back, coding.mean([coding.ideal(target), back])):
        off = (coding.decode(answer) - target)[..., :2]
        assert off.norm(dim=-1).mean() < 0.1
        assert off.mean((0, 1)).abs().max() < 0.02
        assert off.abs().max() < 0.5  # in the last cells, whose counterparts are partly outside
    unknown = coding.ideal(mirror)
    unknown[:, COCO.swap[3]] = -torch.inf
    assert torch.equal(coding.state(coding.flipped(unknown, COCO.swap))[0][0].nonzero(), torch.tensor([[3]]))


@each
def test_half_precision_answers(coding: Coding) -> None:
    target = people(2, coding.size)
    said = answers(coding, target).bfloat16()
    mentors = answers(coding, target, mentors=2, seed=3).bfloat16()
    exact = coding.divergence(said.float(), mentors.float(), 4.0)
    for value in (coding.supervised(said, target), coding.log_fit(said, target), coding.decode(said)):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    assert torch.equal(coding.divergence(said, mentors, 4.0), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(coding.decode(said.float()), coding.decode(said))


def test_inside() -> None:
    coding = SimCC((64, 48), 5)
    joints = [[0.0, 0, 2], [47, 63, 1], [47.2, 10, 2], [10, -0.1, 2], [10, 10, 0]]
    assert coding.inside(torch.tensor([joints]))[0].tolist() == [True, True, False, False, False]


@each
def test_plain_data(coding: Coding) -> None:
    assert from_plain(json.loads(json.dumps(coding.plain()))) == coding


class Head(nn.Module):
    def __init__(self, **said: Any) -> None:
        super().__init__()
        if said:
            self.pose_head = said


@pytest.mark.parametrize(
    ("head", "shape", "expected"),
    [
        (Head(), (2, 17, 896), SimCC(SIZE, 17)),
        (None, (2, 17, 448), SimCC(SIZE, 17, split=1.0)),
        (Head(), (2, 16, 64, 48), Heatmap(SIZE, 16)),
        (Head(kind="heatmap", stride=2, loss="kl"), (2, 17, 128, 96), Heatmap(SIZE, 17, stride=2, loss="kl")),
        (Head(kind="simcc", split=2.0, beta=1.0), (2, 17, 896), SimCC(SIZE, 17, beta=1.0)),
    ],
)
def test_coding_of(head: nn.Module | None, shape: tuple[int, ...], expected: Coding) -> None:
    assert coding_of(head, torch.zeros(shape), SIZE) == expected


@pytest.mark.parametrize(
    ("head", "shape", "said"),
    [
        (Head(), (2, 17), "answers with shape"),
        (Head(kind="simcx"), (2, 17, 896), "simcc"),
        (Head(kind="simcc", split=2.0), (2, 17, 895), "896"),
        (Head(kind="heatmap"), (2, 17, 896), "heatmap head"),
        (Head(kind="heatmap", spilt=3), (2, 17, 64, 48), "spilt"),
    ],
)
def test_coding_of_something_else(head: nn.Module, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        coding_of(head, torch.zeros(shape), SIZE, "mentor 'a'")


def test_beta_is_where_the_functions_have_it() -> None:
    assert (SimCC(SIZE, 1).beta, SimCC(SIZE, 1).split) == (simcc.BETA, simcc.SPLIT) == (10, 2)
