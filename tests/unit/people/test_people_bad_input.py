"""What can be wrong with annotations: one clear error, or a counted, listed skip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import body, category, dataset, mpii, one_mpii, person, read, scene, write

from classroomkd.data import ImageSet, load
from classroomkd.data.keypoints.checks import check_flip_pairs
from classroomkd.data.skeleton import COCO, LSP, Skeleton, from_category
from classroomkd.errors import UserError

Change = Callable[[dict[str, Any]], None]


def changed(folder: Path, change: Change, part: str = "train", **keys: Any) -> ImageSet:
    """The data set whose ``part`` was changed."""
    data = scene(2, images=12) if part == "train" else scene(2, images=3, seed=1, first=1001)
    change(data)
    return read(dataset(folder, **{part: data}), **keys)


def first(**more: Any) -> Change:
    return lambda data: data["annotations"][0].update(more)


def joint(place: int, *value: float) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["annotations"][0]["keypoints"][3 * place : 3 * place + 3] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            first(keypoints=[1.0, 2, 2] * 16),
            "annotation 100 has 48 numbers in keypoints, but the category 'person' has 17",
        ),
        (first(keypoints=[1.0, 2, "x"] * 17), "annotation 100: keypoints is .* it needs 51 numbers"),
        (joint(3, 10, 10, 3), "annotation 100 has v = 3 at joint 3; v is 0 .*, 1 .* or 2"),
        (joint(3, 10, 10, 0.5), "v = 0.5"),
        (joint(3, 10, 10, float("nan")), "v = nan"),
        (first(category_id=9), "category_id 9, which the file's categories \\(1\\) lack"),
        (first(image_id=77), "annotation 100 is of image 77, which the file does not list"),
        (first(bbox=None), "annotation 100 has no bbox"),
        (first(bbox=[1, 2, 3]), "bbox is \\[1, 2, 3\\]; it needs 4 numbers"),
        (first(id=101), "two annotations have the id 101"),
        (lambda data: data.pop("images"), "is no COCO annotation file"),
        (lambda data: data["images"][0].update(width="wide"), "whole numbers as width and height"),
        (lambda data: data["images"][0].update(id=2), "two images have the same id"),
        (
            lambda data: data["categories"][0].pop("keypoints"),
            "exactly one category must have keypoints, there is none",
        ),
        (lambda data: data["images"][0].update(height=10**400), "image 1 cannot have so many pixels"),
        (lambda data: data["images"][0].update(width=99), "it is 160x120 pixels, its annotation says 99x120"),
        (lambda data: data["images"][0].update(file_name="gone.png"), None),
        (
            lambda data: data["categories"][0].update(flip_pairs=[[5, 12], [6, 11]]),
            "flip_pairs of 'person' do not swap left_",
        ),
        (lambda data: data["categories"][0].update(sigmas=[0.1]), "17 joints need 17 sigmas"),
        (lambda data: data["categories"][0].update(sigmas=[float("nan")] * 17), "17 joints need 17 sigmas"),
        (
            lambda data: data["categories"][0].update(sigmas=["a"] * 17),
            r"people_train.json: category 'person': skeleton is",
        ),
        (
            lambda data: data["categories"][0].update(skeleton=[[1, 2, 3]]),
            "category 'person': skeleton is a list of pairs",
        ),
        (lambda data: data["categories"][0].update(skeleton=[1, 2]), "category 'person': skeleton is a list of pairs"),
        (
            lambda data: data["categories"][0].update(flip_pairs=["ab"]),
            "category 'person': .* flip_pairs of pairs from 0",
        ),
        (lambda data: data["categories"][0].update(upper_body=["nose"]), "category 'person': .* upper_body a list"),
        (lambda data: data["categories"][0].update(keypoints=5), "exactly one category must have keypoints"),
        (lambda data: data["categories"][0].update(id="one"), "category 'person' needs a whole number as its id"),
        (lambda data: data["images"][0].update(id=2**70), "the id of image '000001.png' is too large"),
        (first(area="big"), "annotation 100: area is .'big'.; it needs a number"),
        (first(area=[1]), r"annotation 100: area is \[\[1\]\]; it needs a number"),
        (first(id="a17"), "annotation 'a17': id is 'a17'; it needs a whole number"),
        (first(id=2**70), "it needs a whole number"),
        (first(category_id=[1]), "category_id is .1.; it needs a whole number"),
        (first(image_id="one"), "image_id is 'one'; it needs a whole number"),
        (first(iscrowd="0"), "annotation 100: iscrowd is '0'; it is 0 or 1"),
        (first(keypoints=[10**400] * 51), "keypoints: a number is too large for coordinates"),
    ],
)
def test_what_makes_a_file_useless_is_an_error(tmp_path: Path, change: Change, message: str | None) -> None:
    if message is None:  # the picture is listed, but is not there
        source = dataset(tmp_path, train=scene(2, images=12))
        (tmp_path / "images" / "000002.png").unlink()
        with pytest.raises(UserError, match=r"1 images are not in .*images, e\.g\. 000002\.png; add them"):
            read(source)
        images = read(source, unreadable="skip")
        assert len(images.train) + len(images.val) == 22
        assert any("1 images that are missing were left out: 000002.png" in note for note in images.notes)
        return
    with pytest.raises(UserError, match=message):
        changed(tmp_path, change)


@pytest.mark.parametrize("box", [[20.0, 10, 8, 8], [20.0, 10, 1, 40]])
def test_a_box_of_eight_pixels_and_a_thin_one_are_used(tmp_path: Path, box: list[float]) -> None:
    images = changed(tmp_path, first(bbox=box))
    assert len(images.train) + len(images.val) == 24


@pytest.mark.parametrize("text", ['{"images": [], "annotations": [{"id', "", "[1, 2", "\x00\x01"])
def test_half_written_json_is_named(tmp_path: Path, text: str) -> None:
    source = dataset(tmp_path)
    write(tmp_path, "people_train.json", text)
    with pytest.raises(UserError, match=r"people_train\.json is no complete JSON .*get it again"):
        read(source)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (first(bbox=[500.0, 10, 40, 60]), "1 boxes outside the image or without a size left out: 100"),
        (first(bbox=[-90.0, -90, 40, 60]), "1 boxes outside the image or without a size left out: 100"),
        (first(bbox=[20.0, 10, 0, 0]), "1 boxes outside the image or without a size left out: 100"),
        (first(bbox=[20.0, 10, -5, 9]), "1 boxes outside the image or without a size left out: 100"),
        (first(bbox=[20.0, 10, float("nan"), 9]), "1 boxes that are not finite left out: 100"),
        (first(bbox=[20.0, 10, 5, 7.9]), "1 people smaller than 8 pixels left out: 100"),
        (first(bbox=[20.0, 10, 0, 40]), "1 boxes outside the image or without a size left out: 100"),
        (first(area=0), "1 people whose area is not above 0 left out: 100"),
        (first(keypoints=[0] * 51), "1 people without a labelled joint left out: 100"),
        (joint(3, float("nan"), 10, 2), "1 people with coordinates that are not finite were left out: 100"),
        (joint(3, float("inf"), 10, 1), "1 people with coordinates that are not finite were left out: 100"),
    ],
)
def test_one_person_s_mistake_is_a_counted_skip(tmp_path: Path, change: Change, note: str) -> None:
    images = changed(tmp_path / "a", change)
    assert len(images.train) + len(images.val) == 23
    assert any(note in sentence for sentence in images.notes), images.notes
    assert np.isfinite(images.train.target.numpy()).all()
    # In the test part nobody is forgotten: who cannot be cropped still counts as missed, or is ignored by the score.
    if "joint" in note or "finite were" in note:
        return
    tested = changed(tmp_path / "b", lambda data: change(data), part="val")
    assert tested.people is not None
    assert len(tested.test) == 5
    assert len(tested.people.truth(tested.test.ids, bare=True)) == 6


def test_crowds_and_people_without_joints_are_truth_but_no_samples(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["annotations"][0]["iscrowd"] = 1
        data["annotations"][1]["keypoints"] = [0] * 51

    tested = changed(tmp_path, change, part="val")
    assert tested.people is not None
    assert len(tested.test) == 4
    truth = tested.people.truth(tested.test.ids, bare=True)
    assert (len(truth), int(truth.crowd.sum())) == (6, 1)
    assert len(tested.people.truth(tested.test.ids)) == 4  # the picture has no sample: only the whole part sees it
    assert not any("without a labelled joint" in note for note in tested.notes)


def test_coordinates_without_a_label_are_zero(tmp_path: Path) -> None:
    images = changed(tmp_path, joint(3, float("nan"), 55, 0))
    assert len(images.train) + len(images.val) == 24
    row = images.train if 0 in images.train.ids else images.val
    place = int((row.ids == 0).nonzero()[0, 0])
    assert row.target[place, 3].tolist() == [0, 0, 0]


def test_other_categories_and_missing_areas_are_noted(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["categories"].append({"id": 2, "name": "cat"})
        data["annotations"].append({"id": 9999, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]})
        data["annotations"][0]["area"] = None

    images = changed(tmp_path, change)
    assert len(images.train) + len(images.val) == 24
    assert any("1 annotations of categories without joints left out: 9999" in note for note in images.notes)
    assert any("1 annotations have no area" in note for note in images.notes)


def test_unreadable_pictures_are_refused_or_skipped(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    (tmp_path / "images" / "000003.png").write_bytes(b"\x89PNG cut off")
    (tmp_path / "images" / "001002.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 images cannot be used, e\.g\. 000003\.png"):
        read(source)
    images = read(source, unreadable="skip")
    assert (len(images.train) + len(images.val), len(images.test)) == (22, 4)
    assert images.people is not None
    assert len(images.people.truth(images.test.ids, bare=True)) == 4  # nobody can be found in a picture nobody can read


@pytest.mark.parametrize("broken", ["missing", "empty"])
def test_mpii_s_unreadable_pictures_are_refused_or_skipped(tmp_path: Path, broken: str) -> None:
    source = mpii(tmp_path, [one_mpii(k) for k in range(10)])
    mpii(tmp_path, [one_mpii(k) for k in range(20, 24)], "valid.json")
    picture = tmp_path / "images" / one_mpii(21)["image"]
    assert picture.exists()
    picture.unlink()
    if broken == "empty":
        picture.write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.unreadable: skip"):
        read(source)
    images = read(source, unreadable="skip")
    assert (len(images.train) + len(images.val), len(images.test)) == (10, 3)
    assert any("valid.json: 1 " in note and picture.name in note for note in images.notes)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    empty = {**scene(1, images=2, first=1001), "annotations": []}
    with pytest.raises(UserError, match=r"no person is left for the test part .*'; raise"):
        read(dataset(tmp_path, val=empty))
    flat = scene(1, images=2, first=1001)
    flat["annotations"] = [{**one, "bbox": [*one["bbox"][:2], 0, 0]} for one in flat["annotations"]]
    with pytest.raises(UserError, match=r"no person is left for the test part .* left out: .*; mend these, or raise"):
        read(dataset(tmp_path / "flat", val=flat))


def many(skeleton: Skeleton, seed: int = 0) -> np.ndarray:
    """Turned and mirrored bodies with the skeleton's joints, (40, K, 3)."""
    rng = np.random.default_rng(seed)
    coco = np.stack([body(0, 0, 100, rng) for _ in range(40)])
    neck, top = coco[:, 5:7].mean(1), coco[:, 0] - [0, 10]
    known = {name: coco[:, k] for k, name in enumerate(COCO.joints)} | {"neck": neck, "head_top": top}
    joints = np.stack([known[name] for name in skeleton.joints], 1)
    angle = rng.uniform(0, 2 * np.pi, 40)
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1)
    joints = np.einsum("nij,nkj->nki", turn, joints)
    return np.concatenate([joints, np.full((*joints.shape[:2], 1), 2)], -1)


@pytest.mark.parametrize("skeleton", [COCO, LSP])
def test_wrong_flip_pairs_are_found_in_the_labels(skeleton: Skeleton) -> None:
    joints = many(skeleton)
    check_flip_pairs(skeleton, joints, "made")
    names = [f"joint{k}" for k in range(len(skeleton))]  # names that say no side
    plain = {"id": 1, "name": "thing", "keypoints": names, "flip_pairs": [list(pair) for pair in skeleton.flip_pairs]}
    check_flip_pairs(from_category(plain), joints, "made")
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = rng.permutation(len(skeleton.flip_pairs))
        mixed = [[a, skeleton.flip_pairs[order[k]][1]] for k, (a, _) in enumerate(skeleton.flip_pairs)]
        if all(abs(a - b) < 3 for a, b in mixed) or mixed == plain["flip_pairs"]:
            continue
        with pytest.raises(UserError, match="flip_pairs of 'thing' swap joint"):
            check_flip_pairs(from_category({**plain, "flip_pairs": mixed}), joints, "made")
    one_based = [[a + 1, b + 1] for a, b in skeleton.flip_pairs if max(a, b) + 1 < len(skeleton)]
    with pytest.raises(UserError, match="swap joint"):
        check_flip_pairs(from_category({**plain, "flip_pairs": one_based}), joints, "made")
    named = category(keypoints=list(skeleton.joints), skeleton=[], flip_pairs=[])
    with pytest.raises(UserError, match="do not swap left_"):
        check_flip_pairs(from_category(named), joints, "made")


@pytest.mark.data
@pytest.mark.parametrize("file", ["pose_coco_mini.zip", "pose_lspet2400.zip"])
def test_wrong_flip_pairs_are_found_in_real_labels(data_root: Path, file: str) -> None:
    images = load({"source": f"coco-keypoints:{data_root / file}", "size": [16, 12], "limit": 300}, task="pose")
    assert images.people is not None
    skeleton, joints = images.skeleton, images.people.persons.joints
    assert skeleton is not None
    plain = {"id": 1, "name": "thing", "keypoints": [f"joint{k}" for k in range(len(skeleton))]}
    pairs = [list(pair) for pair in skeleton.flip_pairs]
    check_flip_pairs(from_category({**plain, "flip_pairs": pairs}), joints, "real")
    place = {name: k for k, name in enumerate(skeleton.joints)}
    for one, other in (("shoulder", "hip"), ("wrist", "ankle"), ("elbow", "knee")):
        a, b = (place[f"right_{name}"] for name in (one, other))
        mixed = [[k, {a: b, b: a}.get(m, m)] if k not in (a, b) else [{a: b, b: a}[k], m] for k, m in pairs]
        with pytest.raises(UserError, match="swap joint"):
            check_flip_pairs(from_category({**plain, "flip_pairs": mixed}), joints, "real")


def test_mpii_mistakes(tmp_path: Path) -> None:
    def tried(name: str, people: list[dict[str, Any]], **options: Any) -> ImageSet:
        return load({"source": mpii(tmp_path / name, people), "size": [64, 64], "options": options}, task="pose")

    zero = [one_mpii(k, shift=0.0) for k in range(10)]
    zero[4]["joints"][7] = [0.0, 100.0]
    with pytest.raises(UserError, match=r"1 coordinates are below 1, .*set data\.options\.base: 0"):
        tried("zero", zero)
    assert len(tried("zero", zero, base=0).train) == 7
    one = [one_mpii(k) for k in range(10)]
    one[4]["joints"][7] = [300.0, 100.0]
    assert len(tried("one", one).train) == 7
    with pytest.raises(UserError, match=r"counted from 1, as MPII's are; leave out data\.options\.base"):
        tried("one", one, base=0)
    for more, message in (
        ({"joints": one[0]["joints"][:15]}, "person 0 has 15 joints and 16 in joints_vis"),
        ({"joints_vis": [3] * 16}, "joints_vis other than 0 and 1"),
        ({"scale": "big"}, "person 0 needs image, center, scale"),
    ):
        with pytest.raises(UserError, match=message):
            tried(f"bad{len(message)}", [{**one[0], **more}, *one[1:]])
    far = [one_mpii(k) for k in range(10)]
    far[2]["center"] = [900.0, 900.0]
    images = tried("far", far)
    assert any("1 boxes outside the image or without a size left out: 2" in note for note in images.notes)
    broken = [one_mpii(k) for k in range(10)]
    broken[3]["joints"][4] = [float("nan"), 80.0]
    assert any("not finite were left out: 3" in note for note in tried("nan", broken).notes)
    source = mpii(tmp_path / "gone", one)
    (tmp_path / "gone" / "images" / "003.png").unlink()
    with pytest.raises(UserError, match=r"1 of 10 images are not in .*003\.png"):
        load({"source": source, "size": [64, 64]}, task="pose")
    (tmp_path / "gone" / "annot" / "train.json").write_text(json.dumps(one)[:-40])
    with pytest.raises(UserError, match="is no complete JSON"):
        load({"source": source, "size": [64, 64]}, task="pose")


def test_a_person_s_own_annotation_keeps_its_box(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    val = scene(2, images=3, seed=1, first=1001)
    val["annotations"][0] = person(100100, 1001, body(100, 40, 75, rng), bbox=[110.0, 30, 80, 200])
    images = read(dataset(tmp_path, val=val))
    assert images.people is not None
    assert images.people.of(images.test.ids[:1]).box[0].tolist() == [110, 30, 80, 200]
    row = images.people.rows(images.test.ids[:1])[0]
    # Cut to the picture: 110..159 by 30..119.
    centre = images.people.origin[row] + images.people.step[row] * np.array([11.5, 15.5])
    assert centre == pytest.approx([134.5, 74.5])


def test_a_part_with_a_box_that_is_not_finite_can_be_scored(tmp_path: Path) -> None:
    from classroomkd.tasks.pose.judging import judge

    images = changed(tmp_path / "a", first(bbox=[20.0, 10, float("nan"), 9]))
    assert images.people is not None
    assert images.skeleton is not None
    everybody = torch.cat([images.train.ids, images.val.ids])
    truth = torch.cat([images.train.target, images.val.target])
    found = torch.where(truth[..., 2:] > 0, truth, 0.0)
    score, _, figures = judge(images.people, images.skeleton, everybody, found, metric="AP_gtbox")
    assert score > 0.99
    assert all(value == value for value in figures.values())


def test_a_file_without_people_says_so(tmp_path: Path) -> None:
    def nobody(data: dict[str, Any]) -> None:
        data["annotations"] = []

    with pytest.raises(UserError, match="no person"):
        changed(tmp_path / "a", nobody)


@pytest.mark.parametrize("wrong", ["cut", "size", "turned"])
def test_pictures_that_are_cut_on_demand_are_looked_at_before(tmp_path: Path, wrong: str) -> None:
    source = dataset(tmp_path, train=scene(2, images=12))
    file = tmp_path / "images" / "000002.png"
    if wrong == "cut":
        file.write_bytes(b"no picture")
    else:
        from PIL import Image

        Image.new("RGB", (99, 120) if wrong == "size" else (120, 160)).save(file)
    with pytest.raises(UserError, match=r"1 images cannot be used, e\.g\. 000002\.png"):
        read(source, options={"memory_gib": 0})
    images = read(source, options={"memory_gib": 0}, unreadable="skip")
    assert len(images.train) + len(images.val) == 22
    assert any("people on unreadable images left out: 000002.png" in note for note in images.notes)
    everybody = images.train.pixels.fetch(torch.arange(len(images.train)))
    assert len(everybody) == len(images.train)
    kept = read(source, options={}, unreadable="skip")
    assert torch.equal(kept.train.ids, images.train.ids)
    assert torch.equal(kept.train.pixels.fetch(torch.arange(len(kept.train))), everybody)


def test_a_picture_that_its_note_turns_is_used_on_demand(tmp_path: Path) -> None:
    from PIL import Image

    source = dataset(tmp_path, train=scene(2, images=12))
    file = tmp_path / "images" / "000002.png"
    note = Image.Exif()
    note[0x0112] = 6
    Image.fromarray(np.full((160, 120, 3), 200, np.uint8)).save(file, exif=note)
    there = [read(source, options=options) for options in ({"memory_gib": 0}, {})]
    pixels = [one.train.pixels.fetch(torch.arange(len(one.train))) for one in there]
    assert torch.equal(*pixels)
