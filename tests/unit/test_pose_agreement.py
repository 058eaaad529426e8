"""Persons without joints scored by the places on which mentors agree, and joints that mentors name."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from classroomkd.data import load
from classroomkd.data.skeleton import COCO, MPII, Skeleton
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.tasks.pose.agreement import DISTANCE, against_mentors, agreed, apart, mean_pose, score
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.naming import of_mentor, with_skeleton
from classroomkd.tasks.pose.task import Pose

N, K, SIZE = 5, 3, (32, 24)
THREE = Skeleton("three", ("nose", "left_hand", "right_hand"), (), (0.079,) * K, ((1, 2),), ())
CODINGS: list[Coding] = [SimCC(SIZE, K), Heatmap(SIZE, K, stride=2)]
every = pytest.mark.parametrize("coding", CODINGS, ids=["simcc", "heatmap"])


def places(seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.cat([3 + 17 * torch.rand(N, K, 2, generator=draw), torch.ones(N, K, 1)], -1)


@every
def test_whoever_is_where_they_agree_has_everything(coding: Coding) -> None:
    task, ideal = Pose(coding, THREE, unlabelled=True), coding.ideal(places())
    target = agreed(task, torch.stack([ideal, ideal]))
    assert target.shape == (N, K, 3)
    found = score(task, [(ideal[:2], target[:2]), (ideal[2:], target[2:])])
    assert (found.value, found.per_class, found.samples) == (1.0, [1.0] * K, N)
    assert found.more[DISTANCE] < 0.01
    far = coding.ideal(23 - places())
    worse = score(task, [(far, target)])
    assert worse.value < 0.5
    distance = ((23 - places()) - places())[..., :2].norm(dim=-1).mean() / 32
    assert worse.more[DISTANCE] == pytest.approx(float(distance), abs=0.02)
    assert worse.loss > found.loss


@every
def test_joints_that_one_side_does_not_know_are_left_out(coding: Coding) -> None:
    task, said = Pose(coding, THREE, unlabelled=True), torch.stack([coding.ideal(places())] * 2)
    said[:, :, 1] = -torch.inf
    said[:, 3] = torch.nan
    target = agreed(task, said)
    assert (target[:3, :, 2] == torch.tensor([2.0, 0.0, 2.0])).all()
    assert torch.equal(target[3], torch.tensor([0.0, 0.0, UNLABELLED]).expand(K, 3))
    kept = torch.tensor([0, 1, 2, 4])
    student = coding.ideal(places())
    student[:, 2] = -torch.inf
    found = score(task, [(student[kept], target[kept])])
    assert found.value == 1
    assert found.per_class == [1.0, None, None]
    nobody = score(task, [(torch.full_like(student, -torch.inf), target)])
    assert math.isnan(nobody.value)
    assert nobody.more == {}


@every
def test_a_student_is_compared_with_each_mentor(coding: Coding) -> None:
    task = Pose(coding, THREE, unlabelled=True)
    own, other = coding.ideal(places()), coding.ideal(23 - places())
    found = against_mentors(task, own, torch.stack([own, other]), ["a", "b"])
    assert found["agreement with a"] == 1
    assert found["agreement with b"] < 0.5


@every
def test_how_far_mentors_are_apart(coding: Coding) -> None:
    task = Pose(coding, THREE, unlabelled=True)
    own, other = coding.ideal(places()), coding.ideal(23 - places())
    same, split = apart(task, torch.stack([own, own])), apart(task, torch.stack([own, other]))
    assert same.max() < 0.01
    assert split.min() > same.max()
    assert ((split > 0) & (split < 1)).all()
    said = torch.stack([own, own])
    said[1, 0], said[:, 1], said[:, 2, 0] = torch.nan, torch.nan, -torch.inf
    found = apart(task, said)
    assert found.isnan().tolist() == [False, True, False, False, False]
    assert found[0] < 0.01


def test_the_mean_pose_is_of_those_who_have_the_joint() -> None:
    target = places()
    target[0, 1] = 0
    found = mean_pose(target)
    assert found.shape == (N, K, 3)
    torch.testing.assert_close(found[0, 0, :2], places()[:, 0, :2].mean(0))
    torch.testing.assert_close(found[3, 1, :2], places()[1:, 1, :2].mean(0))


def test_people_get_the_joints_that_mentors_name() -> None:
    images = load(
        {"source": "puppets", "size": [32, 24], "options": {"train": 20, "test": 20}, "labels": {"share": 0}},
        task="pose",
    )
    found = with_skeleton(images, MPII)
    assert found.classes == MPII.joints
    assert found.skeleton is MPII
    assert found.unlabelled == len(found.train)
    assert found.train.target.shape[1:] == (16, 3)
    assert found.people is not None
    assert found.people.persons.joints.shape[1:] == (16, 3)
    assert found.metric == "PCKh@0.5"


def test_a_mentor_names_its_joints_in_the_recipe_or_in_its_file(tmp_path: Any) -> None:
    def spec(**more: Any) -> Any:
        given = {"name": "m", "skeleton": None, "checkpoint": None, "taken_as_is": True}
        return SimpleNamespace(**{**given, **more})

    assert of_mentor(spec(), {}) is None
    named = of_mentor(spec(skeleton="mpii"), {})
    assert named is not None
    assert named.joints == MPII.joints
    own = of_mentor(spec(skeleton=["a", "b"]), {"m": torch.nn.Identity()})
    assert own is not None
    assert own.joints == ("a", "b")
    with pytest.raises(UserError, match=r"^mentor 'm': there is no skeleton 'cocco' .*or give the list"):
        of_mentor(spec(skeleton="cocco"), {})
    about = {"classroomkd_schema": "1", "task": "pose", "skeleton": json.dumps(COCO.plain())}
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=about)
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    written = of_mentor(spec(checkpoint=str(tmp_path / "a.safetensors")), {})
    assert written == COCO
    assert of_mentor(spec(checkpoint=str(tmp_path / "b.safetensors")), {}) is None
