"""What a part's people allow to be scored, parts without a label, and mentors that lack joints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import dataset, read, scene

from classroomkd.data import ImageSet
from classroomkd.data.skeleton import COCO
from classroomkd.errors import UserError
from classroomkd.tasks.pose.heatmap import Heatmap
from classroomkd.tasks.pose.judging import METRICS, check_scored, judge
from classroomkd.tasks.pose.reading import sum_up
from classroomkd.tasks.pose.task import Pose


def with_test(folder: Path, change: Any, **keys: Any) -> ImageSet:
    val = scene(2, images=8, seed=1, first=1001)
    for entry in val["annotations"]:
        change(entry)
    return read(dataset(folder, scene(2, images=14), val), **keys)


def unlabel(*joints: str) -> Any:
    def change(entry: dict[str, Any]) -> None:
        for joint in joints:
            k = 3 * COCO.joints.index(joint)
            entry["keypoints"][k : k + 3] = [0, 0, 0]

    return change


def checked(images: ImageSet, metric: str) -> None:
    assert images.people is not None
    assert images.skeleton is not None
    parts = {"validation": images.val.ids, "test": images.test.ids}
    check_scored(metric, images.people, images.skeleton, parts)


def test_a_metric_that_a_part_does_not_allow_is_refused(tmp_path: Path) -> None:
    hips = with_test(tmp_path / "a", unlabel("left_hip", "right_hip"))
    with pytest.raises(
        UserError, match=r"data\.options\.metric: 'PCK@0\.2' cannot be computed on the test part: none of"
    ) as e:
        checked(hips, "PCK@0.2")
    assert "takes one of AP_gtbox, PCK@0.2_box, PCK@0.05_box here" in str(e.value)
    assert "a shoulder and the hip of the other side" in str(e.value)
    for metric in ("AP_gtbox", "PCK@0.2_box", "PCK@0.05_box"):
        checked(hips, metric)
    with pytest.raises(UserError, match=r"'PCKh@0\.5' cannot be computed on the validation part: .* a head whose size"):
        checked(hips, "PCKh@0.5")
    one = with_test(tmp_path / "b", unlabel("left_hip", "left_shoulder"))
    with pytest.raises(UserError, match="test part"):
        checked(one, "PCK@0.2")
    checked(with_test(tmp_path / "c", unlabel("left_hip")), "PCK@0.2")


def nothing(entry: dict[str, Any]) -> None:
    entry["keypoints"] = [0] * 51


def gone(entry: dict[str, Any]) -> None:
    del entry["keypoints"]


def crowd(entry: dict[str, Any]) -> None:
    entry["iscrowd"] = 1


@pytest.mark.parametrize("change", [nothing, gone, crowd])
def test_a_test_part_without_a_label_is_predicted_and_has_no_score(tmp_path: Path, change: Any) -> None:
    images = with_test(tmp_path, change)
    assert len(images.test) == 16
    assert any(
        "none of its persons has a labelled joint: they are predicted, and have no score" in n for n in images.notes
    )
    assert images.people is not None
    assert images.skeleton is not None
    for metric in METRICS:
        checked(images, metric) if metric not in ("PCKh@0.5", "AP_detector") else None
        found = torch.zeros(16, 17, 3)
        value, by_joint, figures = judge(
            images.people, images.skeleton, images.test.ids, found, metric=metric, test=True
        )
        assert math.isnan(value)
        assert by_joint == [None] * 17
        assert all(math.isfinite(figure) for figure in figures.values())


def test_joints_that_a_mentor_lacks_are_not_scored(tmp_path: Path) -> None:
    images = with_test(tmp_path, unlabel())
    assert images.people is not None
    assert images.skeleton is not None
    coding = Heatmap((32, 24), 17)
    task = Pose(coding, images.skeleton)
    target = images.test.target
    ideal = coding.ideal(target)
    lacking = ideal.clone()
    lacking[:, 11:] = -torch.inf
    decoded, loss, knows = sum_up([(lacking[:10], target[:10]), (lacking[10:], target[10:])], coding, task)
    assert knows == [True] * 11 + [False] * 6
    assert math.isfinite(loss)
    whole, _, every = sum_up([(ideal, target)], coding, task)
    assert all(every)
    for metric in ("AP_gtbox", "PCK@0.2", "PCK@0.2_box"):
        best, _, _ = judge(images.people, images.skeleton, images.test.ids, whole, metric=metric, test=True)
        value, by_joint, figures = judge(
            images.people, images.skeleton, images.test.ids, decoded, metric=metric, test=True, answers_to=knows
        )
        assert value == pytest.approx(best, abs=0.02)
        assert by_joint[11:] == [None] * 6
        assert None not in by_joint[:11]
        assert figures["AP_gtbox:AR"] > 0.9
        wrong, _, _ = judge(images.people, images.skeleton, images.test.ids, decoded, metric=metric, test=True)
        assert wrong < value - 0.1
    nobody = [False] * 17
    value, by_joint, _ = judge(
        images.people, images.skeleton, images.test.ids, decoded, metric="AP_gtbox", test=True, answers_to=nobody
    )
    assert math.isnan(value)
    assert by_joint == [None] * 17


def test_json_has_no_nan() -> None:
    from classroomkd._stored import finite

    value = {"a": [np.float64("nan").item(), 1.5, (float("inf"), "x")], "b": None, "c": 3}
    assert json.dumps(finite(value), allow_nan=False) == '{"a": [null, 1.5, [null, "x"]], "b": null, "c": 3}'
