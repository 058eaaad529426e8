"""From decoded answers to scores: pictures that share an id, a detector's boxes, and names of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from people_pieces import dataset, read, scene

from classroomkd.data import ImageSet
from classroomkd.errors import UserError
from classroomkd.tasks.pose.judging import answered, check_metric, judge


def detected(folder: Path) -> ImageSet:
    """A data set whose test part's samples are the boxes of a detector that saw two people twice."""
    val = scene(2, images=3, seed=1, first=1001)
    boxes = [
        {"image_id": entry["image_id"], "category_id": 1, "bbox": entry["bbox"], "score": score}
        for score in (0.9, 0.5)
        for entry in val["annotations"]
    ]
    source = dataset(folder, val=val)
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return read(source, options={"boxes": "boxes.json"})


def test_files_that_use_an_id_twice_are_scored_side_by_side(tmp_path: Path) -> None:
    val = scene(2, images=3, seed=1, first=1)  # ids 1, 2, 3, as in the training part
    for entry in val["images"]:
        entry["file_name"] = f"val{entry['id']}.png"
    images = read(dataset(tmp_path, train=scene(2, images=12), val=val))
    assert images.people is not None
    assert images.skeleton is not None
    parts = (images.train, images.val, images.test)
    ids, found = torch.cat([part.ids for part in parts]), torch.cat([part.target for part in parts])
    numbers = images.people.numbers[images.people.persons.picture]
    assert len(set(numbers.tolist())) == 15
    score, _, _ = judge(images.people, images.skeleton, ids, found, metric="AP_gtbox", test=True)
    assert score == pytest.approx(1.0)


def test_a_detector_s_boxes_have_no_figures_that_need_labels(tmp_path: Path) -> None:
    images = detected(tmp_path)
    assert images.people is not None
    assert images.skeleton is not None
    test = images.test
    answers = torch.cat([torch.full((12, 17, 2), 9.0), torch.ones(12, 17, 1)], -1)
    _, by_joint, figures = judge(images.people, images.skeleton, test.ids, answers, metric="AP_detector", test=True)
    assert by_joint == [None] * 17
    assert not any(name.startswith("PCK") for name in figures)
    json.dumps(figures, allow_nan=False)
    # On the validation part, whose boxes are the annotations', the figure has that name.
    val = images.val
    _, _, figures = judge(images.people, images.skeleton, val.ids, val.target, metric="AP_detector")
    assert "AP_gtbox" in figures
    assert "AP_detector" not in figures


def test_answers_that_say_the_same_are_thinned_out_over_the_crop_s_area(tmp_path: Path) -> None:
    images = detected(tmp_path)
    assert images.people is not None
    assert images.skeleton is not None
    keys = images.test.ids.numpy()
    row = images.people.rows(keys)
    box, step = images.people.persons.box[row], images.people.step[row]
    crop = step**2 * (images.people.size[0] - 1) * (images.people.size[1] - 1)
    assert (crop > 1.2 * 1.25**2 * box[:, 2] * box[:, 3]).all()  # tall people in a crop of its own shape
    # The second of two answers is so far off that over an area between the two their OKS is the threshold, 0.9.
    sigma, between = np.array(images.skeleton.sigmas), np.sqrt(crop * 1.25**2 * box[:, 2] * box[:, 3])
    far = np.linspace(0, 100, 20001)
    alike = np.exp(-((far[:, None, None] / sigma) ** 2) / 8 / between[:, None]).mean(-1)
    away = far[np.abs(alike - 0.9).argmin(0)]
    answers = np.full((12, 17, 3), 9.0)
    answers[6:, :, 0] += (away / step)[6:, None]
    assert len(answered(images.people, keys, answers, images.skeleton).score) == 6
    answers[6:, :, 0] += (away / step)[6:, None]
    assert len(answered(images.people, keys, answers, images.skeleton).score) == 12


def test_names_of_metrics() -> None:
    check_metric("AP_gtbox", "gt")
    check_metric("AP_detector", "detector")
    with pytest.raises(UserError, match=r"there is no 'PCK@0\.3'.*there are AP_gtbox"):
        check_metric("PCK@0.3", "gt")
    for metric in ("AP_gtbox", "PCK@0.2_box"):
        with pytest.raises(UserError, match="with a detector's boxes the test part's score is AP_detector"):
            check_metric(metric, "detector")
