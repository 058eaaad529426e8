"""Sources of persons: COCO folders and zips, MPII, puppets; splits, limits, ids, truth, other processes."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import SMALL, body, category, dataset, mpii, one_mpii, person, read, scene, write

from classroomkd.data import ImageSet, MemoryPixels, load, make_views, puppets, subset
from classroomkd.data.keypoints.files import CropPixels
from classroomkd.data.keypoints.options import metric_for
from classroomkd.data.skeleton import COCO, LSP, MPII
from classroomkd.errors import UserError


def same(first: ImageSet, second: ImageSet) -> bool:
    return all(
        a.digest() == b.digest() and torch.equal(a.batch(torch.arange(len(a)))[0], b.batch(torch.arange(len(b)))[0])
        for a, b in ((getattr(first, part), getattr(second, part)) for part in ("train", "val", "test"))
    )


def test_a_folder_is_read_split_by_image_and_scored_on_its_val_file(tmp_path: Path) -> None:
    images = read(dataset(tmp_path))
    assert (images.shape, images.input, images.metric, images.views) == ((3, 32, 24), (32, 24), "AP_gtbox", "person")
    assert images.train.pixels.shape == (3, 48, 48)
    assert (len(images.train), len(images.val), len(images.test)) == (22, 2, 6)
    assert images.people is not None
    trained, chosen = (set(images.people.image(part.ids)) for part in (images.train, images.val))
    assert not trained & chosen
    assert len(chosen) == 1
    assert images.test.ids.tolist() == list(range(24, 30))  # counted through train and val file
    assert images.people.image(images.test.ids).tolist() == [1001, 1001, 1002, 1002, 1003, 1003]
    assert images.train.target.dtype == torch.float32
    assert images.train.target.shape == (22, 17, 3)
    middle = images.train.target[..., :2].mean((0, 1))
    assert (middle - torch.tensor([11.5, 15.5])).abs().max() < 3
    truth = images.people.truth(images.test.ids, bare=True)
    assert truth.annotation.tolist() == [100100, 100101, 100200, 100201, 100300, 100301]
    assert any("is used as the test part" in note for note in images.notes)


def test_the_same_from_a_zip_and_on_demand_and_in_another_process(tmp_path: Path) -> None:
    source = dataset(tmp_path / "set")
    folder = read(source)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "set").rglob("*.*"):
            file.write(path, path.relative_to(tmp_path / "set"))
    zipped = read(f"coco-keypoints:{archive}")
    lazy = read(f"coco-keypoints:{archive}", options={"memory_gib": 0})
    assert isinstance(folder.train.pixels, MemoryPixels)
    assert isinstance(lazy.train.pixels, CropPixels)
    assert folder.fingerprint != zipped.fingerprint or folder.name == zipped.name
    assert zipped.fingerprint == lazy.fingerprint
    for other in (zipped, lazy, pickle.loads(pickle.dumps(lazy))):
        assert same(folder, other)
    for images in (folder, lazy):
        back = pickle.loads(pickle.dumps(images))
        assert same(images, back)
        for name in (
            "name",
            "classes",
            "skeleton",
            "input",
            "metric",
            "views",
            "fingerprint",
            "shape",
            "mean",
            "notes",
        ):
            assert getattr(back, name) == getattr(images, name), name
        assert back.people is not None
        assert images.people is not None
        assert back.people.pictures == images.people.pictures
        ids = images.test.ids
        assert np.array_equal(
            back.people.to_image(ids, images.test.target), images.people.to_image(ids, images.test.target)
        )
        assert np.array_equal(back.people.truth(ids).joints, images.people.truth(ids).joints)


def test_on_demand_reads_a_picture_once_for_its_people(tmp_path: Path) -> None:
    lazy = read(dataset(tmp_path), options={"memory_gib": 0})
    pixels, *_ = lazy.test.batch(torch.tensor([3, 0, 1, 3]))
    assert torch.equal(pixels[0], pixels[3])
    (tmp_path / "images" / "001001.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"001001\.png cannot be used"):
        lazy.test.batch(torch.tensor([0]))


def test_limits_take_whole_pictures_and_nest(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    five, nine = (read(source, limit=limit, test_limit=limit - 2) for limit in (5, 9))
    assert five.people is not None
    assert nine.people is not None
    assert (len(five.train) + len(five.val), len(nine.train) + len(nine.val)) == (4, 8)
    assert (len(five.test), len(nine.test)) == (2, 6)
    known = [set(images.people.image(torch.cat([images.train.ids, images.val.ids]))) for images in (five, nine)]
    assert known[0] < known[1]
    assert five.fingerprint == nine.fingerprint
    assert five.train.digest() != nine.train.digest()
    assert len(subset(nine.train, 3)) == 3


def test_shards_take_whole_pictures_and_together_are_everything(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    everything, *shards = (read(source, shard=shard) for shard in (None, "1/2", "2/2"))
    known = []
    for images in (everything, *shards):
        assert images.people is not None
        assert torch.equal(images.test.ids, everything.test.ids)
        assert torch.equal(images.test.target, everything.test.target)
        known.append(set(images.people.image(torch.cat([images.train.ids, images.val.ids]))))
    assert [len(pictures) for pictures in known] == [12, 6, 6]
    assert not known[1] & known[2]
    assert known[1] | known[2] == known[0]
    assert same(read(source, shard="1/1"), everything)
    with pytest.raises(UserError, match=r"data\.shard: 13 shards need 13 training pictures .*; there are 12\. "):
        read(source, shard="1/13")


def test_shards_of_one_listing_have_one_test_part(tmp_path: Path) -> None:
    dataset(tmp_path)
    train = f"coco-keypoints:{tmp_path}/annotations/people_train.json@{tmp_path}/images"
    everything, *shards = (load({"train": train, "shard": s, **SMALL}, task="pose") for s in (None, "1/2", "2/2"))
    ids = [set(images.train.ids.tolist()) | set(images.val.ids.tolist()) for images in (everything, *shards)]
    assert not ids[1] & ids[2]
    assert ids[1] | ids[2] == ids[0]
    for images in shards:
        assert torch.equal(images.test.ids, everything.test.ids)
        assert not set(images.test.ids.tolist()) & ids[0]


def test_parts_that_live_apart_and_their_skeletons(tmp_path: Path) -> None:
    dataset(tmp_path)
    files = {
        part: f"coco-keypoints:{tmp_path}/annotations/people_{part}.json@{tmp_path}/images" for part in ("train", "val")
    }
    images = load({"train": files["train"], "test": files["val"], **SMALL}, task="pose")
    assert (len(images.train), len(images.val), len(images.test)) == (22, 2, 6)
    alone = load({"train": files["train"], **SMALL}, task="pose")
    assert len(alone.train) + len(alone.val) + len(alone.test) == 24
    other = scene(1, images=2, first=50)
    other["categories"][0]["keypoints"] = [f"joint{k}" for k in range(17)]
    write(tmp_path, "other.json", other)
    files["val"] = f"coco-keypoints:{tmp_path}/annotations/other.json@{tmp_path}/images"
    with pytest.raises(UserError, match=r"data\.test: its joints are joint0, .*same skeleton"):
        load({"train": files["train"], "test": files["val"], **SMALL}, task="pose")


def test_a_detector_s_boxes_are_the_test_part_s_samples(tmp_path: Path) -> None:
    val = scene(2, images=3, seed=1, first=1001)
    val["annotations"] += [person(7, 1003, body(5, 5, 60, np.random.default_rng(0)), iscrowd=1)]
    source = dataset(tmp_path, val=val)
    boxes = [
        {"image_id": 1001, "category_id": 1, "bbox": [10.0, 10, 40, 80], "score": 0.9},
        {"image_id": 1001, "category_id": 3, "bbox": [10.0, 10, 40, 80], "score": 0.9},
        {"image_id": 1002, "category_id": 1, "bbox": [10.0, 10, 0.5, 0.5], "score": 0.8},
        {"image_id": 1002, "category_id": 1, "bbox": [20.0, 10, 40, 80], "score": 0.4},
        {"image_id": 4711, "category_id": 1, "bbox": [20.0, 10, 40, 80], "score": 0.4},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    images = read(source, options={"boxes": "boxes.json"})
    assert images.metric == "AP_detector"
    assert images.people is not None
    assert images.people.boxes == "detector"
    assert len(images.test) == 2
    assert (images.test.target == 0).all()
    rows = images.people.rows(images.test.ids)
    assert images.people.score[rows].tolist() == [0.9, 0.4]
    assert images.people.persons.annotation[rows].tolist() == [-1, -1]
    truth = images.people.truth(images.test.ids, bare=True)
    assert len(truth) == 7  # picture 1003 has no box: its people were missed
    assert int(truth.crowd.sum()) == 1
    assert len(images.people.truth(images.test.ids)) == 4
    assert any("1 of 4 boxes are of images" in note for note in images.notes)
    assert any("without a size left out: in image 1002" in note for note in images.notes)
    assert read(source).metric == "AP_gtbox"
    assert read(source).fingerprint != images.fingerprint
    (tmp_path / "boxes.json").write_text(json.dumps(boxes[4:]))
    with pytest.raises(UserError, match="its boxes are of other images"):
        read(source, options={"boxes": "boxes.json"})


def test_puppets_as_people() -> None:
    images = load({"source": "puppets", "options": {"train": 40, "test": 20, "image_size": 48}}, task="pose")
    assert (images.shape, images.metric, images.views) == ((3, 64, 64), "AP_gtbox", "person_flip")
    assert (len(images.train), len(images.val), len(images.test)) == (36, 4, 20)
    drawn = puppets.scenes(0, np.arange(10_000_000, 10_000_020), image_size=48)
    assert images.people is not None
    there = images.people.to_image(images.test.ids, images.test.target)
    labelled = drawn.joints[..., 2] > 0
    assert np.abs(there[labelled][:, :2] - (drawn.joints[labelled][:, :2] - 0.5)).max() < 1e-4
    # A puppet's head is near the nose in the picture, and the same colour must be near the nose in the crop.
    plain, target = make_views("none", view_seed=0, image_size=(64, 64), images=images).eval_view(
        *images.test.batch(torch.arange(20))[:2]
    )
    for row in range(20):
        x, y = (int(value) for value in drawn.joints[row, 0, :2])
        u, v = (round(float(value)) for value in target[row, 0, :2])
        if labelled[row, 0] and min(x, y) > 2 and max(x, y) < 45:
            away = plain[row, :, v, u].int() - torch.from_numpy(drawn.images[row, :, y, x].astype(int))
            assert away.abs().max() < 90
    assert 0 < min(images.mean) < max(images.mean) < 1
    classes = load({"source": "puppets", "options": {"train": 40, "test": 20}})
    assert classes.skeleton is None
    assert classes.metric == "accuracy"


def test_mpii_is_counted_from_one_and_its_square_is_moved_down(tmp_path: Path) -> None:
    source = mpii(tmp_path, [one_mpii(k) for k in range(10)])
    mpii(tmp_path, [one_mpii(k) for k in range(20, 24)], "valid.json")
    images = load({"source": source, "size": [64, 64]}, task="pose")
    assert (images.metric, images.views, len(images.test)) == ("PCKh@0.5", "person_mpii", 4)
    people = images.people
    assert people is not None
    row = people.rows(images.test.ids[:1])[0]
    assert people.step[row] == pytest.approx(1.25 * 100 / 63)
    assert people.origin[row] + people.step[row] * 31.5 == pytest.approx([90, 87.5])
    joints = np.array(one_mpii(20)["joints"]) - 1
    assert people.persons.joints[row, :, :2] == pytest.approx(joints)
    hidden = people.persons.joints[people.rows(images.test.ids[1:2])[0], 0]
    assert hidden.tolist() == [0, 0, 0]
    assert people.persons.head[row] == pytest.approx(0.5 * 200 / 6 * 0.75 / 0.6)
    assert any("estimated from each person's scale" in note for note in images.notes)


def test_mpii_heads_come_from_the_mat_file(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    source = mpii(tmp_path, [one_mpii(k) for k in range(10)])
    mpii(tmp_path, [one_mpii(k) for k in range(20, 24)], "valid.json")
    boxes = np.zeros((2, 2, 4))
    boxes[1, 0], boxes[1, 1] = 30, 40
    io.savemat(tmp_path / "annot" / "gt_valid.mat", {"headboxes_src": boxes})
    images = load({"source": source, "size": [64, 64]}, task="pose")
    assert images.people is not None
    assert images.people.of(images.test.ids).head.tolist() == [50.0] * 4
    io.savemat(tmp_path / "annot" / "gt_valid.mat", {"headboxes_src": 2 * boxes})
    assert load({"source": source, "size": [64, 64]}, task="pose").fingerprint != images.fingerprint
    io.savemat(tmp_path / "annot" / "gt_valid.mat", {"headboxes_src": boxes[..., :3]})
    with pytest.raises(UserError, match=r"4 people, the \.mat file beside it 3"):
        load({"source": source, "size": [64, 64]}, task="pose")


def test_a_detector_s_boxes_decide_the_metric() -> None:
    assert [metric_for(skeleton, "detector") for skeleton in (COCO, MPII, LSP)] == ["AP_detector"] * 3
    assert [metric_for(skeleton, "gt") for skeleton in (COCO, MPII, LSP)] == ["AP_gtbox", "PCKh@0.5", "PCK@0.2"]


def test_mpii_s_labels_are_those_that_the_official_scorer_counts(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    people = [one_mpii(k) for k in range(20, 24)]  # 21 and 23 have no first joint
    source = mpii(tmp_path, [one_mpii(k) for k in range(10)])
    mpii(tmp_path, people, "valid.json")
    place = np.array([entry["joints"] for entry in people])  # from 1, as the scorer's
    missing = 1 - np.array([entry["joints_vis"] for entry in people])
    missing[0, 5] = 1
    place[1, 0], missing[1, 0] = (70.5, 80.5), 0
    file = {"headboxes_src": np.ones((2, 2, 4)), "jnt_missing": missing.T, "pos_gt_src": place.transpose(1, 2, 0)}

    def read_it(**more: Any) -> ImageSet:
        io.savemat(tmp_path / "annot" / "gt_valid.mat", {**file, **more})
        return load({"source": source, "size": [64, 64]}, task="pose")

    images = read_it()
    assert images.people is not None
    joints = images.people.of(images.test.ids).joints
    assert ((joints[..., 2] > 0) == (missing == 0)).all()
    assert joints[1, 0].tolist() == [69.5, 79.5, 2]
    assert joints[0, 5].tolist() == [0, 0, 0]
    assert joints[2, :, :2] == pytest.approx(place[2] - 1)
    assert any("2 joints have a label in only one of it and gt_valid.mat" in note for note in images.notes)
    moved = place.copy()
    moved[2, 2, 1] += 9
    with pytest.raises(UserError, match=r"right_hip of person 2 is 9 pixels from where the \.mat file"):
        read_it(pos_gt_src=moved.transpose(1, 2, 0))
    with pytest.raises(UserError, match=r"not MPII's gt_valid\.mat \(jnt_missing has the shape \(4, 16\)\)"):
        read_it(jnt_missing=missing)


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        (
            "digits",
            "pose",
            "'digits' has classes, not persons with joints; for task: pose there are puppets, images, c",
        ),
        ("mpii:x", "classification", "'mpii' has persons with joints, not classes; for task: classification there are"),
        ({"source": "puppets", "views": "crop"}, "pose", "'crop' moves pixels but not joints"),
        ({"source": "puppets", "size": [64, 48]}, "classification", "is for pose; whole images are square"),
        ({"source": "puppets", "options": {"rotation": 120}}, "pose", "120 does not fit; give 0 to 90"),
        ({"source": "puppets", "options": {"rotation": 20}}, "classification", "unknown option of 'puppets'"),
        ({"source": "puppets", "options": {"metric": 3}}, "pose", "data.options.metric = 3: must be text"),
        ("coco-keypoints:/nowhere", "pose", "there is no folder or zip archive /nowhere"),
        ("coco-keypoints:/nowhere.json@/", "pose", "there is no file /nowhere.json"),
        ({"source": "puppets", "size": [64]}, "pose", "or \\[height, width\\] for pose"),
    ],
)
def test_what_does_not_fit_is_one_sentence(spec: Any, task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(spec, task=task)


def test_annotation_files_are_found_or_asked_for(tmp_path: Path) -> None:
    dataset(tmp_path)
    write(tmp_path, "also_train.json", scene(1, images=2))
    with pytest.raises(
        UserError, match=r"2 annotation files could be the train part .*data\.options\.train: annotations"
    ):
        read(f"coco-keypoints:{tmp_path}")
    options = {"train": "annotations/people_train.json", "test": "annotations/people_val.json"}
    assert len(read(f"coco-keypoints:{tmp_path}", options=options).test) == 6
    with pytest.raises(UserError, match=r"annotations/nothing\.json is not in"):
        read(f"coco-keypoints:{tmp_path}", options={"train": "annotations/nothing.json"})
    for name in ("person_keypoints_train2017.json", "person_keypoints_val2017.json"):
        write(tmp_path, name, scene(1, images=4, first=1 if "train" in name else 9))
    assert len(read(f"coco-keypoints:{tmp_path}").test) == 4  # COCO's own names come first
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"its images \(000001\.png, …\) are in none of"):
        read(f"coco-keypoints:{tmp_path}")
    assert len(read(f"coco-keypoints:{tmp_path}", options={"images": "pictures"}).test) == 4


def test_skeletons_of_the_user_s_own(tmp_path: Path) -> None:
    data = scene(2, images=12)
    data["categories"] = [category(name="dog", keypoints=[f"joint{k}" for k in range(17)], skeleton=[])]
    images = read(dataset(tmp_path, train=data, val={**data, "images": data["images"]}))
    assert images.skeleton is not None
    assert images.skeleton.name == "dog"
    assert images.metric == "AP_gtbox"
    assert images.classes[3] == "joint3"


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "kind", "sizes", "metric"),
    [
        ("pose_coco_mini.zip", "coco-keypoints", (86, 126), "AP_gtbox"),
        ("pose_lspet2400.zip", "coco-keypoints", (2000, 400), "PCK@0.2"),
        ("pose_mpii_sample.zip", "mpii", (4, 1), "PCKh@0.5"),
    ],
)
def test_the_real_subsets(data_root: Path, file: str, kind: str, sizes: tuple[int, int], metric: str) -> None:
    images = load({"source": f"{kind}:{data_root / file}", "size": [64, 48]}, task="pose")
    assert (len(images.train) + len(images.val), len(images.test)) == sizes
    assert images.metric == metric
    assert images.people is not None
    for part in (images.train, images.val, images.test):
        labelled = part.target[..., 2] > 0
        assert labelled.any(1).all()
        inside = (part.target[..., :2] > -3).all(-1) & (part.target[..., :2] < torch.tensor([50, 66])).all(-1)
        assert float(inside[labelled].float().mean()) > 0.98
        there = images.people.to_image(part.ids, part.target)
        known = images.people.of(part.ids).joints
        assert np.abs(there - known)[labelled.numpy()].max() < 1e-2
    if file.startswith("pose_coco"):
        truth = images.people.truth(images.test.ids, bare=True)
        assert len(truth) == 189
        assert len(np.unique(images.people.persons.picture[images.people.rows(images.test.ids)])) <= 49
