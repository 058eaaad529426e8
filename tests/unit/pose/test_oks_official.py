"""Our OKS-AP is pycocotools', to the last bit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classroomkd import _compat
from classroomkd.data.skeleton import COCO, LSP
from classroomkd.errors import UserError
from classroomkd.tasks.pose import official
from classroomkd.tasks.pose.oks import by_visibility, keypoint_ap
from classroomkd.tasks.pose.results import read_results, write_results
from classroomkd.tasks.pose.truth import Predictions, Truth

needs_pycocotools = pytest.mark.skipif(
    not _compat.installed("pycocotools"), reason="pycocotools is not installed (extra: pose)"
)


def answers(rng: np.random.Generator, truth: Truth, extra: int, steps: int | None) -> Predictions:
    """Every person of the truth answered some times, more or less well, and ``extra`` false alarms."""
    n, k = truth.joints.shape[:2]
    who = rng.permutation(np.repeat(np.arange(n), rng.integers(0, 5, n)))
    spread = np.sqrt(np.maximum(truth.area[who], 1)) * rng.choice([0, 0.02, 0.05, 0.1, 0.3], len(who))
    xy = truth.joints[who, :, :2] + rng.normal(size=(len(who), k, 2)) * spread[:, None, None]
    empty = (truth.joints[who, :, 2] == 0).all(1)  # in or about the box then
    corner, side = truth.box[who, None, :2], truth.box[who, None, 2:]
    xy[empty] = (corner + side * rng.uniform(-1.2, 2.2, (len(who), k, 2)))[empty]
    false = rng.uniform(0, 400, (extra, k, 2))
    assert truth.images is not None
    image = np.concatenate([truth.image[who], rng.choice(truth.images, extra)])
    score = rng.uniform(size=len(image))
    if steps:
        score = np.round(score * steps) / steps  # ties
    return Predictions(image, np.concatenate([xy, false]), score)


def scene(seed: int, images: int, people: int, k: int = 17, crowds: float = 0.15, jointless: float = 0.4) -> Truth:
    rng = np.random.default_rng(seed)
    ids = rng.choice(100_000, images, replace=False)
    side = rng.uniform(5, 200, (people, 2))
    box = np.concatenate([rng.uniform(0, 300, (people, 2)), side], 1)
    v = rng.choice([0, 1, 2], (people, k), p=[0.4, 0.2, 0.4])
    v[rng.uniform(size=people) < jointless] = 0
    xy = (box[:, None, :2] + side[:, None] * rng.uniform(size=(people, k, 2))) * (v > 0)[..., None]
    area = side.prod(1) * rng.uniform(0.3, 1, people)
    area[: people // 10] = rng.choice([32**2, 96**2, 0.0], people // 10)  # right on the borders
    joints = np.concatenate([np.round(xy, 2), v[..., None]], -1)
    image = rng.choice(ids[: max(1, images * 3 // 4)], people)  # some images have nobody
    if people > 4:  # twins in one image: equal OKS
        image[1], joints[1], area[1], box[1] = image[0], joints[0], area[0], box[0]
    return Truth(image, joints, area, box, rng.uniform(size=people) < crowds, ids)


@needs_pycocotools
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [None, 5])
def test_random_sets(seed: int, steps: int | None) -> None:
    rng = np.random.default_rng(100 + seed)
    truth = scene(seed, images=30, people=90)
    found = answers(rng, truth, 60, steps)
    assert keypoint_ap(truth, found, COCO.sigmas) == official.official_ap(truth, found, COCO.sigmas)


@needs_pycocotools
def test_full_images_and_another_skeleton() -> None:
    """Over twenty answers an image, up to 60 people in one, 14 joints."""
    rng = np.random.default_rng(5)
    truth = scene(9, images=4, people=100, k=14)
    found = answers(rng, truth, 80, 7)
    assert np.bincount(np.unique(found.image, return_inverse=True)[1]).max() > 20
    assert keypoint_ap(truth, found, LSP.sigmas) == official.official_ap(truth, found, LSP.sigmas)


@needs_pycocotools
@pytest.mark.parametrize(("crowds", "jointless"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_extreme_sets(crowds: float, jointless: float) -> None:
    truth = scene(3, images=10, people=30, crowds=crowds, jointless=jointless)
    found = answers(np.random.default_rng(4), truth, 10, 3)
    ours = keypoint_ap(truth, found, COCO.sigmas)
    assert ours == official.official_ap(truth, found, COCO.sigmas)
    assert (ours["AP"] == -1) == (max(crowds, jointless) == 1)


@needs_pycocotools
def test_areas_that_are_told_and_no_answers() -> None:
    truth = scene(12, images=10, people=40)
    found = answers(np.random.default_rng(1), truth, 30, None)
    told = Predictions(
        found.image, found.joints, found.score, np.random.default_rng(2).uniform(0, 20_000, len(found.score))
    )
    ours = keypoint_ap(truth, told, COCO.sigmas)
    assert ours == official.official_ap(truth, told, COCO.sigmas)
    assert ours != keypoint_ap(truth, found, COCO.sigmas)
    none = Predictions([], np.zeros((0, 17, 2)), [])
    assert keypoint_ap(truth, none, COCO.sigmas) == official.official_ap(truth, none, COCO.sigmas)


@needs_pycocotools
def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth = scene(1, images=2, people=6)
    official.official_ap(truth, answers(np.random.default_rng(1), truth, 3, None), COCO.sigmas)
    assert capsys.readouterr().out == ""


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "installed", lambda package: package != "pycocotools")
    truth = scene(1, images=2, people=6)
    with pytest.raises(UserError, match=r'pip install "pycocotools>=2\.0\.9"'):
        official.official_ap(truth, answers(np.random.default_rng(1), truth, 3, None), COCO.sigmas)


def read(root: Path, member: str) -> tuple[dict[str, Any], Truth]:
    archive = root / "pose_coco_mini.zip"
    if not archive.is_file():
        pytest.skip("no pose_coco_mini.zip in CLASSROOMKD_DATA")
    with zipfile.ZipFile(archive) as opened:
        dataset = json.loads(opened.read(f"annotations/{member}"))
    people = dataset["annotations"]
    truth = Truth(
        [a["image_id"] for a in people],  # type: ignore[arg-type]
        np.array([a["keypoints"] for a in people]).reshape(-1, 17, 3),
        [a["area"] for a in people],  # type: ignore[arg-type]
        [a["bbox"] for a in people],  # type: ignore[arg-type]
        [a["iscrowd"] for a in people],  # type: ignore[arg-type]
        [i["id"] for i in dataset["images"]],  # type: ignore[arg-type]
    )
    return dataset, truth


@needs_pycocotools
@pytest.mark.data
@pytest.mark.parametrize("seed", range(3))
def test_real_coco_from_its_own_file(data_root: Path, tmp_path: Path, seed: int) -> None:
    """Perturbed truth of COCO's val2017 subset, by way of a results file, against pycocotools on both files."""
    dataset, truth = read(data_root, "person_keypoints_val2017.json")
    assert truth.crowd is not None
    assert truth.images is not None
    assert (len(truth.images), int(truth.crowd.sum())) == (49, 3)
    found = answers(np.random.default_rng(seed), truth, 40, 20 if seed else None)
    write_results(tmp_path / "results.json", found)
    again = read_results(tmp_path / "results.json", set(truth.images.tolist()), 17)
    results = json.loads((tmp_path / "results.json").read_text())
    ours = keypoint_ap(truth, again, COCO.sigmas)
    assert ours == official.official_json(dataset, results, COCO.sigmas)
    assert ours == keypoint_ap(truth, found, COCO.sigmas)
    assert 0.2 < ours["AP"] < 0.9
    # pycocotools writes COCO's sigmas as quotients; ours are decimals, five of them 1e-17 away
    theirs = official.official_json(dataset, results)
    assert theirs == pytest.approx(ours, abs=1e-9)
    assert "id" not in results[0]
    assert "ignore" not in dataset["annotations"][0]  # the caller's lists stay as they were


@needs_pycocotools
@pytest.mark.data
def test_real_coco_by_visibility(data_root: Path, tmp_path: Path) -> None:
    dataset, truth = read(data_root, "person_keypoints_val2017.json")
    found = answers(np.random.default_rng(8), truth, 0, None)
    ours = by_visibility(truth, found, COCO.sigmas)
    write_results(tmp_path / "results.json", found)
    results = json.loads((tmp_path / "results.json").read_text())
    for name, value in (("visible", 2), ("hidden", 1)):
        people = []
        for a in dataset["annotations"]:
            v = [x if x == value else 0 for x in a["keypoints"][2::3]]
            keypoints = [x for k in range(17) for x in (*a["keypoints"][3 * k : 3 * k + 2], v[k])]
            people.append(a | {"keypoints": keypoints, "num_keypoints": sum(x > 0 for x in v)})
        assert ours[name] == official.official_json(dataset | {"annotations": people}, results, COCO.sigmas)
