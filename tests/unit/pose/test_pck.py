"""PCKh and PCK against their formulas written out, and by hand."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classroomkd.data.skeleton import COCO, LSP, MPII
from classroomkd.errors import UserError
from classroomkd.tasks.pose.pck import HRNET_AT_01, box_side, head_from_scale, head_size, pck, pckh, torso


def scene(seed: int, people: int = 60, k: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 500, (people, k, 2))
    v = rng.choice([0, 1, 2], (people, k), p=[0.3, 0.2, 0.5])
    joints = np.concatenate([xy * (v > 0)[..., None], v[..., None]], -1)
    boxes = np.concatenate([xy[:, 0], xy[:, 0] + rng.uniform(20, 90, (people, 2))], 1)
    return xy + rng.normal(size=xy.shape) * rng.choice([2, 10, 40], (people, k, 1)), joints, boxes


def test_pckh_is_the_official_arithmetic() -> None:
    """Matrices (K, 2, N) and (2, 2, N) and percentages, as the MPII evaluation has them, joint by joint."""
    predicted, joints, boxes = scene(0)
    gt, pred, heads = joints[..., :2].transpose(1, 2, 0), predicted.transpose(1, 2, 0), boxes.reshape(-1, 2, 2)
    visible = (joints[..., 2] > 0).T.astype(float)
    scaled = np.linalg.norm(pred - gt, axis=1) / (np.linalg.norm(heads[:, 1] - heads[:, 0], axis=1) * 0.6)
    keep = [k for k in range(16) if k not in (6, 7)]

    def official(threshold: float) -> tuple[np.ndarray, float]:
        count = visible.sum(1)
        joint = 100 * ((scaled <= threshold) * visible).sum(1) / count
        return joint, float((joint[keep] * count[keep]).sum() / count[keep].sum())

    table = pckh(predicted, joints, head_size(boxes))
    by_joint, mean = official(0.5)
    assert list(table.scores) == ["PCKh@0.5", "PCKh@0.1", "PCKh@0.11 (HRNet's 'Mean@0.1')"]
    expected = [mean, official(0.1)[1], official(np.arange(0, 0.51, 0.01)[11])[1]]
    assert [100 * v for v in table.scores.values()] == pytest.approx(expected, abs=1e-10)
    assert len(set(expected)) == 3
    assert [100 * table.joints[j] for j in MPII.joints] == pytest.approx(list(by_joint), abs=1e-10)
    groups = [
        by_joint[9],
        *((by_joint[a] + by_joint[b]) / 2 for a, b in ((12, 13), (11, 14), (10, 15), (2, 3), (1, 4), (0, 5))),
    ]
    assert list(table.groups) == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    assert [100 * v for v in table.groups.values()] == pytest.approx(groups, abs=1e-10)
    assert table.counts["head_top"] == visible[9].sum()
    assert (table.people, table.left_out) == (60, 0)


def one(error: float, joint: int = 9) -> tuple[np.ndarray, np.ndarray]:
    joints = np.zeros((1, 16, 3))
    joints[0, joint, 2] = 1
    predicted = np.zeros((1, 16, 2))
    predicted[0, joint, 0] = error
    return predicted, joints


@pytest.mark.parametrize(("error", "right"), [(30.0, 1.0), (30.001, 0.0), (np.nan, 0.0), (np.inf, 0.0)])
def test_the_border_belongs_and_what_is_not_finite_is_a_miss(error: float, right: float) -> None:
    table = pckh(*one(error), [100.0])  # 0.5 · 0.6 · 100
    assert table.scores["PCKh@0.5"] == table.joints["head_top"] == table.groups["Head"] == right


def test_hrnets_second_figure_is_another_threshold() -> None:
    scores = pckh(*one(6.3), [100.0]).scores
    assert (scores["PCKh@0.1"], scores[HRNET_AT_01]) == (0.0, 1.0)
    assert next(iter(pckh(*one(6.3), [100.0], 0.3).scores)) == "PCKh@0.3"


@pytest.mark.parametrize("joint", [6, 7])
def test_pelvis_and_thorax_are_no_part_of_the_mean(joint: int) -> None:
    predicted, joints = one(1000.0, joint)
    joints[0, 9, 2] = 1
    table = pckh(predicted, joints, [100.0])
    assert table.scores["PCKh@0.5"] == 1.0
    assert table.joints[MPII.joints[joint]] == 0.0


def test_people_without_a_reference_are_counted_not_scored() -> None:
    predicted, joints = (np.repeat(x, 4, 0) for x in one(10.0))
    joints[3, :, 2] = 0  # nothing labelled: not missed either
    table = pckh(predicted, joints, [100.0, np.nan, 0.0, np.nan])
    assert (table.people, table.left_out, table.counts["head_top"]) == (1, 2, 1)
    nobody = pckh(predicted, joints, np.full(4, np.nan))
    assert np.isnan(nobody.scores["PCKh@0.5"])
    assert np.isnan(nobody.groups["Knee"])


def test_a_group_with_one_side_labelled_is_that_side() -> None:
    assert pckh(*one(0.0, 0), [100.0]).groups["Ankle"] == 1.0


def test_a_skeleton_with_other_joints() -> None:
    joints = np.ones((1, 14, 3))
    table = pckh(joints[..., :2], joints, [50.0], skeleton=LSP)
    assert list(table.groups) == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    assert "Head" not in pckh(np.ones((1, 17, 2)), np.ones((1, 17, 3)), [50.0], skeleton=COCO).groups


def test_pck_by_hand() -> None:
    joints = np.zeros((2, 14, 3))
    joints[..., 2] = 2
    joints[0, 0, 2] = 0
    predicted = np.zeros((2, 14, 3))
    predicted[0, :4, 1] = 21  # one of these four is not labelled
    predicted[1, 13, 0] = 20
    table = pck(predicted, joints, [100.0, 100.0], skeleton=LSP)
    assert table.scores == {"PCK@0.2": 24 / 27}
    assert (table.joints["right_ankle"], table.joints["right_knee"], table.joints["head_top"]) == (1.0, 0.5, 1.0)
    assert table.counts["right_ankle"] == 1
    assert list(pck(predicted, joints, [90.0, 90.0], 0.1, skeleton=LSP, by="box").scores.items()) == [
        ("PCK@0.1_box", 23 / 27)
    ]


def test_references() -> None:
    joints = np.zeros((4, 14, 3))
    joints[..., 2] = 1
    joints[:, LSP.joints.index("left_shoulder"), :2] = [3, 4]
    joints[:, LSP.joints.index("right_shoulder"), :2] = [6, 8]
    joints[1, LSP.joints.index("right_hip"), 2] = 0
    joints[2:, LSP.joints.index("left_shoulder"), 2] = 0
    joints[3, LSP.joints.index("left_hip"), 2] = 0
    assert torso(joints, LSP) == pytest.approx([5, 10, 10, np.nan], nan_ok=True)
    assert box_side([[5, 5, 10, 20], [0, 0, 7, 3]]).tolist() == [20, 7]
    assert head_size([[10, 20, 13, 24]]).tolist() == [5]
    limbless = replace(LSP, joints=tuple(f"j{i}" for i in range(14)))
    with pytest.raises(UserError, match="has no right_shoulder, so no torso"):
        torso(joints, limbless)


def test_what_does_not_fit_is_one_sentence() -> None:
    predicted, joints, boxes = scene(1, k=17)
    with pytest.raises(UserError, match=r"skeleton 'mpii' has 16 joints: predicted \(60, 17, 2\)"):
        pckh(predicted, joints, head_size(boxes))
    with pytest.raises(UserError, match=r"reference \(59,\)"):
        pck(predicted, joints, np.ones(59), skeleton=COCO)


@pytest.mark.data
def test_heads_of_the_mpii_sample(data_root: Path) -> None:
    """There the line from neck to head top is 200 · scale / 6, and 0.75 of it is the reference."""
    archive = data_root / "pose_mpii_sample.zip"
    if not archive.is_file():
        pytest.skip("no pose_mpii_sample.zip in CLASSROOMKD_DATA")
    with zipfile.ZipFile(archive) as opened:
        people = json.loads(opened.read("annot/mpii_sample.json"))
    xy = np.array([p["joints"] for p in people])
    joints = np.concatenate([xy, np.array([p["joints_vis"] for p in people])[..., None]], -1)
    head = head_from_scale([p["scale"] for p in people])
    line = np.linalg.norm(xy[:, 8] - xy[:, 9], axis=1)
    assert head * 0.6 == pytest.approx(0.75 * line, rel=1e-5)
    away = np.zeros_like(xy)
    away[..., 0] = 0.5 * 0.75 * line[:, None]
    assert pckh(xy + 0.9999 * away, joints, head).scores["PCKh@0.5"] == 1.0
    assert pckh(xy + 1.0001 * away, joints, head).scores["PCKh@0.5"] == 0.0
