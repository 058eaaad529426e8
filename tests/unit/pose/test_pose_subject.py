"""The engine's side of pose: calibration of mentors who do not know every joint, and heads of published weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classroomkd.recipe import make_recipe
from classroomkd.recipe.schema import MentorSpec
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.tasks.pose.coding import Heatmap, SimCC
from classroomkd.tasks.pose.runner import PoseRunner
from classroomkd.tasks.pose.translation import Translation


@pytest.fixture
def joints(tmp_path: Path) -> PoseRunner:
    data = {"source": "puppets", "size": 32, "options": {"train": 40, "test": 20, "image_size": 32}}
    recipe = make_recipe({"task": "pose", "data": data, "student": "simcc_tiny", "method": "none", "device": "cpu"})
    subject = Networks(open_context(recipe, tmp_path / "out")).task_runner
    assert isinstance(subject, PoseRunner)
    return subject


def test_unknown_and_broken_joints_are_no_evidence_for_a_temperature(joints: PoseRunner) -> None:
    assert isinstance(joints.coding, SimCC)
    target = joints.context.data.val.target
    perfect = joints.coding.ideal(target) * 2.0  # twice too sure: 2 is the temperature that fits
    unknown, broken, silent = perfect.clone(), perfect.clone(), perfect.clone()
    unknown[:, 3] = -torch.inf
    broken[0, 5] = torch.nan
    silent[:] = -torch.inf
    found = joints.calibration(torch.stack([perfect, unknown, broken, silent]), target)
    assert found.temperature[0].item() == pytest.approx(2.0, rel=0.1)
    assert found.temperature[1:3].tolist() == pytest.approx([found.temperature[0].item()] * 2)
    assert found.temperature[3].item() == 1.0
    assert found.ceiling.isfinite().all()


@pytest.mark.parametrize("size", [(64, 48), (256, 192)])
def test_published_maps_are_read_where_their_cells_are(size: tuple[int, int]) -> None:
    """Cell j of HRNet's released weights is at pixel 4 j."""
    maps = torch.zeros(1, 2, size[0] // 4, size[1] // 4)
    maps[0, 0, 3, 5] = maps[0, 1, -1, -1] = 1.0
    released = Heatmap(size, 2, aligned="stride", decoder="argmax")
    assert released.decode(maps)[0, :, :2].tolist() == [[20, 12], [4 * (size[1] // 4 - 1), 4 * (size[0] // 4 - 1)]]
    udp = Heatmap(size, 2, decoder="argmax")
    assert udp.decode(maps)[0, 1, :2].tolist() == pytest.approx([size[1] - 1, size[0] - 1])
    own = SimCC(size, 2)
    target = torch.tensor([[[20.0, 12.0, 2.0], [33.0, 41.0, 2.0]]])
    translated = Translation(released, own)(released.ideal(target))
    assert (own.decode(translated)[..., :2] - target[..., :2]).abs().max().item() <= 0.5
    assert not Translation(released, udp).identity


def test_answers_of_other_rules_or_heads_are_not_taken_for_these(
    joints: PoseRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = (
        joints.context.recipe.mentors[0]
        if joints.context.recipe.mentors
        else MentorSpec(name="big", model="simcc_tiny")
    )
    module = joints.resolve("simcc_tiny")
    first = joints.lineage(spec, joints.wrap(spec, module, None, None, None))
    assert first == joints.lineage(spec, joints.wrap(spec, module, None, None, None))
    other = joints.resolve("simcc_tiny")
    other.pose_head = {"kind": "simcc", "split": 2.0, "beta": 3.0}  # type: ignore[assignment]
    assert joints.lineage(spec, joints.wrap(spec, other, None, None, None)) != first
    monkeypatch.setattr("classroomkd.tasks.pose.runner.VERSION", -1)
    assert joints.lineage(spec, joints.wrap(spec, module, None, None, None)) != first
