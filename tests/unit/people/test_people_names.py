"""Joints by their names, however sides are written, and what a category says of mirrors, links and sigmas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from people_pieces import category, dataset, read, scene

from classroomkd.data import ImageSet, make_views
from classroomkd.data.joint_names import mirror_pairs, standard_name
from classroomkd.data.skeleton import COCO, from_category, union

PARTS = [re.sub("^(left|right)_", "", joint) for joint in COCO.joints]
SIDES = [joint.split("_")[0] if "_" in joint else "" for joint in COCO.joints]


def spelled(rule: Any) -> list[str]:
    return [rule(side, part) if side else part for side, part in zip(SIDES, PARTS, strict=True)]


SPELLINGS = {
    "L_Shoulder": spelled(lambda side, part: f"{side[0].upper()}_{part.title()}"),
    "l_shoulder": spelled(lambda side, part: f"{side[0]}_{part}"),
    "left shoulder": spelled(lambda side, part: f"{side} {part}"),
    "Left-Shoulder": spelled(lambda side, part: f"{side.title()}-{part.title()}"),
    "leftShoulder": spelled(lambda side, part: side + part.title()),
    "LeftShoulder": spelled(lambda side, part: side.title() + part.title()),
    "leftshoulder": spelled(lambda side, part: side + part),
    "LEFT_SHOULDER": spelled(lambda side, part: f"{side}_{part}".upper()),
    "shoulder_left": spelled(lambda side, part: f"{part}_{side}"),
    "shoulder.L": spelled(lambda side, part: f"{part}.{side[0].upper()}"),
    "LShoulder": spelled(lambda side, part: side[0].upper() + part.title()),
    "lshoulder": spelled(lambda side, part: side[0] + part),
    "Lshoulder": spelled(lambda side, part: side[0].upper() + part),
    "shoulder-left": spelled(lambda side, part: f"{part}-{side}"),
    "shoulderLeft": spelled(lambda side, part: part + side.title()),
    "(left) shoulder": spelled(lambda side, part: f"({side}) {part}"),
}


def opened(folder: Path, **more: Any) -> ImageSet:
    keys = more.pop("keys", {})
    train, val = scene(2, images=14), scene(2, images=8, seed=1, first=1001)
    for part in (train, val):
        part["categories"] = [category(**more)]
    return read(dataset(folder, train, val), **keys)


def mirror_notes(images: ImageSet) -> list[str]:
    return [note for note in images.notes if "flip_pairs" in note]


@pytest.mark.parametrize("joints", SPELLINGS.values(), ids=SPELLINGS)
def test_sides_are_read_in_every_common_spelling(tmp_path: Path, joints: list[str]) -> None:
    assert [standard_name(joint) for joint in joints] == list(COCO.joints)
    images = opened(tmp_path, keypoints=joints)
    assert images.skeleton is not None
    assert images.skeleton.swap == COCO.swap
    assert images.skeleton.sigmas == COCO.sigmas
    assert images.skeleton.upper == COCO.upper
    assert images.classes == tuple(joints)  # shown as they were written
    assert images.metric == "AP_gtbox"
    assert COCO.places(images.skeleton) == tuple(range(17))
    assert not mirror_notes(images)
    assert not any("sigmas" in note for note in images.notes)


def test_sides_of_other_bodies() -> None:
    for joints, pairs in (
        (["L_F_Paw", "R_F_Paw", "L_B_Paw", "R_B_Paw", "Tail"], ((0, 1), (2, 3))),
        (["hand-left-0", "hand-left-1", "hand-right-0", "hand-right-1"], ((0, 2), (1, 3))),
        (["lsho", "rsho", "lkne", "rkne", "pelv"], ((0, 1), (2, 3))),
        (["nose", "leye", "reye", "lear", "rear"], ((1, 2), (3, 4))),
        (["lwing2", "rwing2", "beak"], ((0, 1),)),
        (["left_front_paw", "right_rear_paw", "rear_left"], ()),
        (["nose", "bright spot", "lower lip", "rower"], ()),
        (["1", "2", "3", "4"], ()),
        (["l_spine", "spine", "L1", "L2"], ()),
    ):
        assert mirror_pairs(joints) == pairs, joints


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        ([str(k) for k in range(17)], "no left and right by their names"),
        ([f"face-{k}" for k in range(17)], "no left and right by their names"),
        ([*COCO.joints[:13], *(f"face-{k}" for k in range(4))], "4 joints (face-0, face-1, face-2, face-3) have no"),
        ([*COCO.joints[:16], "l_tail"], "2 joints (left_ankle, l_tail) have no partner"),
    ],
)
def test_mirrors_without_pairs_are_noted(tmp_path: Path, joints: list[str], said: str) -> None:
    (note,) = mirror_notes(opened(tmp_path / "a", keypoints=joints))
    assert said in note
    assert "flip_pairs" in note
    assert "data.options.flip: 0" in note
    for keys in ({"options": {"flip": 0}}, {"views": "none"}):
        assert not mirror_notes(opened(tmp_path / "a", keypoints=joints, keys=keys))
    swap = list(COCO.swap) if joints[0] == "0" else list(range(17))
    if joints[0] in ("0", "face-0"):
        images = opened(tmp_path / "b", keypoints=joints, flip_idx=swap)
        assert not mirror_notes(images)
        assert images.skeleton is not None
        assert list(images.skeleton.swap) == swap


def test_flip_idx_moves_labels_in_mirrored_views(tmp_path: Path) -> None:
    images = opened(
        tmp_path, keypoints=[f"p{k}" for k in range(17)], flip_idx=list(COCO.swap), keys={"views": "person_flip"}
    )
    views = make_views("person_flip", view_seed=0, image_size=(32, 24), images=images)
    pixels, target, ids = images.train.batch(images.train.rows[:1])
    _, moved = views.render(pixels, target, ids, ids * 0 + 1)
    assert moved[0, 5, 0] == pytest.approx(float(23 - target[0, 6, 0]), abs=1e-4)


@pytest.mark.parametrize("order", [[0], list(range(16)), [1, 2, 0, *range(3, 17)], "ab", [0.5] * 17])
def test_a_flip_idx_that_is_none_is_refused(tmp_path: Path, order: Any) -> None:
    with pytest.raises(Exception, match=r"people_train.json: category 'person': .*flip_idx"):
        opened(tmp_path, flip_idx=order)


def test_unknown_sigmas_are_said(tmp_path: Path) -> None:
    images = opened(tmp_path, keypoints=[*COCO.joints[:16], "tail"])
    assert any("no sigmas are known for tail (1 of 17 joints): OKS takes 0.079" in note for note in images.notes)
    given = opened(tmp_path, keypoints=[*COCO.joints[:16], "tail"], sigmas=[0.1] * 17)
    assert not any("sigmas" in note for note in given.notes)


def test_links_from_zero_and_out_of_range(tmp_path: Path) -> None:
    zero = opened(tmp_path / "a", skeleton=[[a, b] for a, b in COCO.links])
    assert zero.skeleton is not None
    assert zero.skeleton.links == COCO.links
    assert any("links count joints from 0" in note for note in zero.notes)
    far = opened(tmp_path / "b", skeleton=[[1, 2], [3, 18], [99, 1], [4, 4], [-1, 2]])
    assert far.skeleton is not None
    assert far.skeleton.links == ((0, 1),)
    assert any("4 of the skeleton's 5 links are left out" in note and "[3, 18]" in note for note in far.notes)
    named = opened(
        tmp_path / "c", skeleton=[["nose", "left_eye"]], flip_pairs=[["left_eye", "right_eye"], *COCO.flip_pairs[1:]]
    )
    assert named.skeleton is not None
    assert named.skeleton.links == ((0, 1),)
    assert named.skeleton.flip_pairs == COCO.flip_pairs


def test_a_union_of_spellings_has_each_joint_once() -> None:
    other = from_category({"name": "other", "keypoints": ["L_Ankle", "tail", "R_Ankle"]})
    assert union(COCO, other).joints == (*COCO.joints, "tail")
    assert union(COCO, other).flip_pairs == tuple(sorted(COCO.flip_pairs))
