"""Results files: what was written is read, and what is wrong is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classroomkd.errors import UserError
from classroomkd.tasks.pose.results import person_scores, read_results, write_results
from classroomkd.tasks.pose.truth import Predictions


def found(people: int = 3, joints: int = 2) -> Predictions:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 99, (people, joints, 3)).astype(np.float32)
    return Predictions(np.arange(people) + 7, xy, rng.uniform(size=people).astype(np.float32))


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path, wrote = tmp_path / "deep" / "results.json", found()
    write_results(path, wrote)
    got = read_results(path, {7, 8, 9, 10}, 2)
    assert got.image.tolist() == [7, 8, 9]
    assert np.array_equal(got.joints, wrote.joints)
    assert np.array_equal(got.score, wrote.score)
    assert np.array_equal(got.areas(), wrote.areas())
    assert os.listdir(path.parent) == ["results.json"]
    assert json.loads(path.read_text())[0].keys() == {"image_id", "category_id", "keypoints", "score"}


def test_joints_without_scores_and_nobody(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, Predictions([7], found(1).joints[..., :2], [0.5]), category=3)
    assert read_results(path, [7], 2, category=3).joints[0, :, 2].tolist() == [1, 1]
    write_results(path, Predictions([], np.zeros((0, 2, 2)), []))
    assert read_results(path, [7], 2).joints.shape == (0, 2, 3)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_results(path, found())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="broken"):
        write_results(path, found(9))
    assert path.read_bytes() == before


def test_areas_come_from_boxes_where_there_are_boxes(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, found(2))
    people = json.loads(path.read_text())
    for person in people:
        person["bbox"] = [0, 0, 4, 5]
    path.write_text(json.dumps(people))
    assert read_results(path, {7, 8}, 2).areas().tolist() == [20, 20]
    del people[1]["bbox"]
    path.write_text(json.dumps(people))
    with pytest.raises(UserError, match="bbox of four numbers"):
        read_results(path, {7, 8}, 2)


def changed(key: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    def change(people: list[dict[str, Any]]) -> None:
        people[1][key] = value

    return change


def without(key: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(people: list[dict[str, Any]]) -> None:
        del people[1][key]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("image_id", 99), r"1 image\(s\) that are not among the 3 annotated ones \(99\)"),
        (changed("image_id", "8"), r"\('8'\)"),
        (changed("image_id", [8]), r"\(\[8\]\)"),
        (changed("category_id", 2), r"result 1 \(from 0\) has category_id 2, the annotations' people have 1"),
        (changed("keypoints", [1, 2, 3]), r"result 1 \(from 0\) has 3 numbers as keypoints; the skeleton has 2 joints"),
        (changed("keypoints", "123456"), r"result 1 \(from 0\) has str as keypoints"),
        (changed("keypoints", [1, 2, 3, float("nan"), 5, 6]), "keypoints with something that is not a finite"),
        (changed("keypoints", [1, 2, 3, None, 5, 6]), "result 1 .* has keypoints with something"),
        (changed("keypoints", [1, 2, 3, "4", 5, 6]), "result 1 .* has keypoints with something"),
        (changed("keypoints", [1, 2, 3, [4], 5, 6]), "result 1 .* has keypoints with something"),
        (changed("keypoints", [1, 2, 3, 10**400, 5, 6]), "result 1 .* has keypoints with something"),
        (changed("score", float("inf")), "result 1 .* has score with something"),
        (changed("score", "0.5"), "result 1 .* has score with something"),
        (without("score"), r"result 1 \(from 0\) has no score"),
        (without("image_id"), r"result 1 \(from 0\) has no image_id"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], words: str) -> None:
    path = tmp_path / "results.json"
    write_results(path, found())
    people = json.loads(path.read_text())
    change(people)
    path.write_text(json.dumps(people))
    with pytest.raises(UserError, match=words) as caught:
        read_results(path, {7, 8, 9}, 2)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[\n{"image_id": 7, "category_id": 1, "keyp', r"not whole JSON \(it stops making sense at line 2\)"),
        (b"", "not whole JSON"),
        (b"[\xff", "not whole JSON"),
        (b'{"annotations": []}', "no list of results"),
        (b"[[1, 2]]", "no list of results"),
    ],
)
def test_half_written_and_other_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_results(path, {7}, 2)
    with pytest.raises(UserError, match=r"cannot read the results file .*absent\.json: No such file"):
        read_results(tmp_path / "absent.json", {7}, 2)


def test_person_scores() -> None:
    joints = [[0.9, 0.5, 0.1], [0.2, 0.1, 0.0], [0.3, 0.3, 0.3]]
    assert person_scores(joints, [1.0, 1.0, 0.5]) == pytest.approx([0.7, 0.0, 0.15])
    assert person_scores(joints, [1.0, 1.0, 1.0], threshold=0.05) == pytest.approx([0.5, 0.15, 0.3])
