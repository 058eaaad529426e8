"""Pose networks that answer together: the mean of what they say, and how often two of them differ."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pose_pieces import answers, people
from torch import Tensor

from classroomkd.data.skeleton import COCO
from classroomkd.tasks.pose.agreement import pairs_apart
from classroomkd.tasks.pose.coding import Heatmap, SimCC
from classroomkd.tasks.pose.runner import PoseRunner
from classroomkd.tasks.pose.task import Pose

SIZE = (64, 48)
CODINGS = [SimCC(SIZE, 17), Heatmap(SIZE, 17)]
codings = pytest.mark.parametrize("coding", CODINGS, ids=["simcc", "heatmap"])


def runner(coding: Any) -> PoseRunner:
    """One that is asked about answers alone."""
    made = object.__new__(PoseRunner)
    made.skeleton = COCO
    vars(made)["coding"] = coding  # a cached property
    return made


@codings
def test_several_networks_answer_with_the_mean_of_what_they_say(coding: Any) -> None:
    said = answers(coding, people(5, SIZE), mentors=3).double()
    joined = runner(coding).together(said)
    if isinstance(coding, Heatmap):
        torch.testing.assert_close(joined, said.mean(0))
        return
    for own, parts in zip(coding.parts(joined), zip(*map(coding.parts, said), strict=True), strict=True):
        mean = torch.stack([(coding.beta * one).softmax(-1) for one in parts]).mean(0)
        torch.testing.assert_close((coding.beta * own).softmax(-1), mean)


def moved(coding: Any, pixels: Tensor) -> Tensor:
    """Perfect answers about people whose joints are moved to the right, the k-th by so many pixels."""
    target = people(4, SIZE, margin=24.0)[..., :3].clone()
    target[..., :2] = torch.tensor([10.0, 30.0])
    target[..., 0] += pixels
    ideal: Tensor = coding.ideal(target)
    return ideal


@codings
def test_two_of_them_differ_where_a_joint_is_somewhere_else(coding: Any) -> None:
    here = moved(coding, torch.zeros(17))
    far = torch.zeros(17)
    far[:4] = 25.0
    there = moved(coding, far)
    task = Pose(coding, COCO, unlabelled=True)
    assert pairs_apart(task, torch.stack([here, here])).tolist() == [0.0] * 4
    torch.testing.assert_close(pairs_apart(task, torch.stack([here, there])), torch.full((4,), 4 / 17))
    three = pairs_apart(task, torch.stack([here, there, here]))  # two of three pairs
    torch.testing.assert_close(three, torch.full((4,), 4 / 17 * 2 / 3))
    torch.testing.assert_close(runner(coding).apart(torch.stack([here, there])), torch.full((4,), 4 / 17))


@codings
def test_somewhere_else_is_an_oks_below_one_half(coding: Any) -> None:
    """Where OKS is 1/2 is another distance for every joint: exp(-d² / (2 s² (2 sigma)²)), s² = 0.21 of the crop."""
    half = torch.tensor([2 * sigma for sigma in COCO.sigmas]) * (2 * math.log(2) * 0.21 * SIZE[0] * SIZE[1]) ** 0.5
    task, here = Pose(coding, COCO, unlabelled=True), moved(coding, torch.zeros(17))
    for factor, differ in ((0.6, 0.0), (1.4, 1.0)):
        there = moved(coding, factor * half)
        assert pairs_apart(task, torch.stack([here, there])).tolist() == [differ] * 4
