"""The task: which joints count, who is credible, and that nothing breaks where there is no truth."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from pose_pieces import answers, people
from torch import Tensor

from classroomkd import tasks
from classroomkd.classroom import masked_mean
from classroomkd.data.skeleton import COCO, MPII
from classroomkd.errors import UserError
from classroomkd.functional import grade
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.task import Pose

SIZE = (96, 72)
CODINGS = [SimCC(SIZE, 17), Heatmap(SIZE, 17), Heatmap(SIZE, 17, loss="kl")]
each = pytest.mark.parametrize("coding", CODINGS, ids=["simcc", "mse", "kl"])


def partly(batch: int = 3) -> Tensor:
    """Joint 0 hidden, 1 without a label, 2 outside; the others visible."""
    target = people(batch, SIZE, margin=10)
    target[:, 0, 2] = 1
    target[:, 1] = 0
    target[:, 2, 0] = 200
    return target


def test_table() -> None:
    assert isinstance(tasks.create("pose", coding=CODINGS[0], skeleton=COCO), Pose)
    assert Pose.sketch().coding.joints == 17


@each
def test_what_counts(coding: Coding) -> None:
    task, target = Pose(coding, COCO), partly()
    counts = [True, False, False] + [True] * 14
    assert task.mask(target).tolist() == [counts] * 3
    assert task.distill_mask(target).all()
    assert torch.equal(Pose(coding, COCO, distil_hidden=False).distill_mask(target), task.mask(target))
    assert torch.equal(task.unit_labels(target), torch.arange(17).expand(3, 17))
    said = answers(coding, target)
    task.check(said, target)
    loss = task.supervised(said, target)
    assert torch.equal(loss > 0, task.mask(target))
    assert [tuple(x.shape[:-1]) for x in task.distributions(said)] == [(3, 17)] * len(task.labels(target))


@each
def test_a_mistake_is_a_place_too_far_off_and_not_another_bin(coding: Coding) -> None:
    """0.84 px is no mistake, though the best bin is another one on all persons; nor is anything without a truth."""
    task, target = Pose(coding, COCO), partly(40)
    target[:, 3:, :2] = target[:, 3:, :2].clamp(20, 50)
    turn = torch.rand(40, 17, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
    aside = torch.stack([turn.cos(), turn.sin(), 0 * turn], -1)
    said = coding.ideal(target + 0.84 * aside)
    own = super(Pose, task).mistaken(said, target)
    assert own.any(-1).float().mean() > 0.9  # the exact bin
    assert task.mistaken(said, target).float().mean() < 0.01
    k = torch.tensor(COCO.sigmas).unsqueeze(-1) * 2
    half = (2 * 0.21 * SIZE[0] * SIZE[1] * k.square() * math.log(2)).sqrt()  # where OKS is 1/2
    near, far = (task.mistaken(coding.ideal(target + by * half * aside), target) for by in (0.7, 1.4))
    assert near[:, 3:].float().mean() < 0.05
    assert far[:, 3:].float().mean() > 0.95
    assert not far[:, 1:3].any()
    assert not task.mistaken(torch.full_like(said, torch.nan), target)[:, 1:3].any()


@each
@pytest.mark.parametrize("per", ["joint", "person"])
def test_credibility(coding: Coding, per: Literal["joint", "person"]) -> None:
    task, target = Pose(coding, COCO, per=per), partly()
    said = answers(coding, target, mentors=3)
    said[1, :, [1, 5]] = -torch.inf
    said[2, 0, 6] = torch.nan
    said[2, 1, 1] = torch.nan
    log = task.log_credibility(said, target)
    raw, mask = coding.log_fit(said, target, COCO.sigmas), task.mask(target)
    assert (log[1, :, [1, 5]] == -torch.inf).all()
    assert log.isnan().nonzero().tolist() == [[2, 0, 6], [2, 1, 1]]
    if per == "joint":
        assert torch.equal(log[0][mask], raw[0][mask])
        assert (log[0][~mask] == 0).all()
    else:
        mean = raw[0, 0][mask[0]].mean()
        assert torch.allclose(log[0, 0], mean)
        without = mask[0].clone()
        without[5] = False
        assert torch.allclose(log[1, 0, 3:5], raw[1, 0][without].mean())
        without[5], without[6] = True, False
        assert torch.allclose(log[2, 0, 3:5], raw[2, 0][without].mean())
    own = task.log_credibility(said[0], target)
    # One mentor's answers alone and among three: sums of other shapes, which a kernel may order anew.
    torch.testing.assert_close(own, log[0], equal_nan=True)
    assert torch.equal(task.credibility(said[0], target), own.exp())


@each
@pytest.mark.parametrize("per", ["joint", "person"])
def test_no_joint_has_a_label(coding: Coding, per: Literal["joint", "person"]) -> None:
    task, target = Pose(coding, COCO, per=per), torch.zeros(1, 17, 3)
    own = answers(coding, people(1, SIZE)).requires_grad_()
    loss = masked_mean(task.supervised(own, target), task.mask(target))
    loss.backward()
    assert loss.detach() == 0
    assert own.grad is not None
    assert torch.equal(own.grad, torch.zeros_like(own))
    assert (task.log_credibility(own.detach(), target) == 0).all()


@each
@pytest.mark.parametrize("rule", ["sample", "batch", "rank"])
def test_a_graded_step_reads_nothing_back(
    coding: Coding, rule: Literal["sample", "batch", "rank"], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, target = Pose(coding, COCO), partly()
    own = answers(coding, target, noise=0.5).bfloat16().requires_grad_()
    theirs = answers(coding, target, mentors=3, noise=0.1, seed=2)
    theirs[1, :, 7] = -torch.inf

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a training step read a tensor's value")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    mask = task.mask(target)
    log = task.log_credibility(theirs, target)
    grades = grade(task.log_credibility(own, target), log, mask, rule=rule)
    far = task.divergence(own, theirs, grades.temperature)
    distilled = masked_mean((grades.weight * grades.strength * far).sum(0), task.distill_mask(target))
    loss = masked_mean(task.supervised(own, target), mask) + distilled
    loss.backward()
    task.labels(target), task.unit_labels(target), task.distributions(theirs)
    monkeypatch.undo()
    assert own.grad is not None
    assert own.grad.isfinite().all()
    assert loss.isfinite()
    assert grades.weight[1, :, 7].abs().max() == 0 or rule != "sample"


def test_better_mentor_is_more_credible() -> None:
    target = people(8, SIZE, margin=10)
    for coding in CODINGS:
        task = Pose(coding, COCO)
        good, bad = coding.ideal(target), coding.ideal(target + torch.tensor([12.0, 12, 0]))
        log = task.log_credibility(torch.stack([good, bad]), target)
        assert (log[0] > log[1] + 0.05).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[:, :16], "17 joints must be float"),
        (lambda t: t.long(), "must be float"),
        (lambda t: t + torch.nan, "not finite"),
        (lambda t: t + torch.tensor([0, 0, 1.0]), "visibility"),
    ],
)
def test_targets_that_cannot_be(change: object, said: str) -> None:
    task, target = Pose(CODINGS[0], COCO), people(2, SIZE)
    with pytest.raises(UserError, match=said):
        task.check(answers(CODINGS[0], target), change(target))  # type: ignore[operator]
    with pytest.raises(UserError, match="simcc head says"):
        task.check(torch.zeros(2, 17, 3), target)


def test_options_that_cannot_be() -> None:
    with pytest.raises(UserError, match="skeleton 'mpii' has 16"):
        Pose(CODINGS[0], MPII)
    with pytest.raises(UserError, match="label_smoothing"):
        Pose(CODINGS[0], COCO, label_smoothing=0.1)
    with pytest.raises(UserError, match="joint or person"):
        Pose(CODINGS[0], COCO, per="image")  # type: ignore[arg-type]
