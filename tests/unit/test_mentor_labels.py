"""What mentors that a run trains are taught, where some samples have no label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from classroomkd.data import subsets
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.run.context import RunContext
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.opening import open_context


def opened(out: Path, share: float, train: dict[str, Any], **mentor: Any) -> RunContext:
    """A context whose second mentor is in question; of 180 training images ``share`` have a label."""
    data = {"source": "puppets", "options": {"train": 200, "test": 20, "image_size": 32}, "labels": {"share": share}}
    mentors = [{"name": "first", "model": "convnet8"}, {"name": "big", "model": "resnet8", "train": train, **mentor}]
    recipe = {"data": data, "student": "resnet8", "mentors": mentors, "method": "average", "device": "cpu"}
    return open_context(make_recipe(recipe), out)


def test_a_mentor_is_trained_on_labels_alone(tmp_path: Path) -> None:
    part, note = mentor_part(opened(tmp_path, 0.5, {"label_noise": 0.5}), 1)
    assert len(part) == 90
    assert bool(part.labelled.all())
    assert note == "the 90 of 180 samples that have a label; 50% of its labels are wrong"
    whole, note = mentor_part(opened(tmp_path, 1, {}), 1)
    assert (len(whole), note) == (180, "")


def test_a_specialist_knows_its_classes_by_labels(tmp_path: Path) -> None:
    part, _ = mentor_part(opened(tmp_path, 0.5, {"classes": ["stand", "star"], "others": 0.34}), 1)
    counts = subsets.class_counts(part, 10)
    assert sorted(counts) == [3] * 8 + [9, 9]


def test_an_assistant_sees_all_and_no_label_is_made_up(tmp_path: Path) -> None:
    keys = {"train": {"label_noise": 1.0}, "taught_by": ["first"]}
    part, _ = mentor_part(opened(tmp_path, 0.5, **keys), 1)
    assert len(part) == 180
    assert int((part.target == UNLABELLED).sum()) == 90
    special, _ = mentor_part(opened(tmp_path, 0.5, {"classes": ["stand"], "others": 0.5}, taught_by=["first"]), 1)
    assert subsets.class_counts(special, 10) == [9] + [4] * 9
    assert int((special.target == UNLABELLED).sum()) == 45
    assert torch.equal(special.ids, special.ids.sort().values)


def test_a_mentor_without_any_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mentors\.1: no training image has a label to train it on; give it weights"):
        mentor_part(opened(tmp_path, 0, {}), 1)
