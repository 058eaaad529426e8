"""Pictures without labels: what a part knows of them, and how they are split, capped and shared out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from classroomkd import data
from classroomkd.data import subsets
from classroomkd.data.images import ImageSet, MemoryPixels, Part
from classroomkd.data.loading import _assemble
from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.sources.dataset_names import by_name
from classroomkd.data.spec import parse
from classroomkd.data.targets import KEYPOINTS, UNLABELLED
from classroomkd.errors import UserError

NAMES = ("ant", "bee", "cat")


def source(*counts: int, classes: tuple[str, ...] = NAMES, **parts: int) -> Source:
    """One lot with ``counts`` images of each class, then of those without a label; every picture is its own."""
    target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    target[target >= len(classes)] = UNLABELLED
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(64, 256, (len(target), 3, 32, 32), dtype=np.uint8))
    raw = Raw(MemoryPixels(images), target, torch.arange(len(target)), len(target))
    return Source("drawn", classes, {"all": raw}, "crop", "mark")


def assembled(*counts: int, classes: tuple[str, ...] = NAMES, **keys: Any) -> ImageSet:
    return _assemble(source(*counts, classes=classes), parse("drawn", **keys))


def test_a_part_knows_which_samples_have_a_label() -> None:
    images = assembled(20, 20, 20, 40)
    train = images.train
    assert torch.equal(train.labelled, train.target >= 0)
    assert train.labelled.dtype == torch.bool
    assert images.unlabelled == int((train.target == UNLABELLED).sum()) == 40
    assert subsets.class_counts(train, 3) == [14, 14, 14]


def test_joints_are_labels() -> None:
    four = torch.arange(4)
    part = Part(MemoryPixels(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)), torch.zeros(4, 5, 3), four, four, KEYPOINTS)
    assert part.labelled.tolist() == [True] * 4


def test_test_and_val_are_cut_from_labelled_images_alone() -> None:
    images = assembled(20, 20, 20, 40)
    for part, each in ((images.val, 2), (images.test, 4)):
        assert subsets.class_counts(part, 3) == [each] * 3
        assert bool(part.labelled.all())
    alone = assembled(20, 20, 20)
    assert torch.equal(alone.test.ids, images.test.ids)  # pictures without labels move nothing
    assert torch.equal(alone.val.ids, images.val.ids)


def test_where_nothing_has_a_label_parts_are_split_off_all() -> None:
    images = assembled(50, classes=())
    assert (len(images.train), len(images.val), len(images.test)) == (36, 4, 10)
    assert images.unlabelled == 36
    assert images.classes == ()


def test_a_cap_takes_both_in_proportion() -> None:
    images = assembled(20, 20, 20, 60, limit=36, test_fraction=0.1)
    kept = len(images.train) + len(images.val)
    assert kept == 36
    assert 15 <= images.unlabelled <= 21  # of 54 with and 60 without
    part = data.subset(images.train, 10)
    assert len(part) == 10
    assert 0 < int(part.labelled.sum()) < 10


def test_shards_share_out_both() -> None:
    first, second = (assembled(20, 20, 20, 41, shard=shard) for shard in ("1/2", "2/2"))
    assert {first.unlabelled, second.unlabelled} == {20, 21}
    both = [set(images.train.ids.tolist()) | set(images.val.ids.tolist()) for images in (first, second)]
    assert not both[0] & both[1]
    assert torch.equal(first.test.ids, second.test.ids)
    with pytest.raises(UserError, match=r"need 30 training images of every class; 'ant' has 16"):
        assembled(20, 20, 20, 41, shard="1/30")


def test_a_class_may_lack_labels_where_some_pictures_have_none() -> None:
    images = assembled(20, 1, 0, 20)
    assert subsets.class_counts(images.train, 3) == [14, 1, 0]
    assert any("no image has a label of the classes cat" in note for note in images.notes)
    assert any("one image alone has a label of the classes bee" in note for note in images.notes)
    with pytest.raises(UserError, match="too few in 'bee' \\(1\\), 'cat' \\(0\\)"):
        assembled(20, 1, 0)
    with pytest.raises(UserError, match="has 1 class; a classifier needs at least two"):
        assembled(20, 20, classes=("ant",))


def test_the_digest_knows_which_labels_are_hidden() -> None:
    images = assembled(20, 20, 20)
    target = images.train.target.clone()
    target[0] = UNLABELLED
    hidden = replace(images.train, target=target)
    assert hidden.digest() != images.train.digest()


def test_no_label_stays_none_when_classes_change_their_order() -> None:
    target = torch.tensor([0, UNLABELLED, 2, 1])
    assert by_name(target, NAMES, ("cat", "bee", "ant"), "data").tolist() == [2, UNLABELLED, 0, 1]
    nothing = torch.full((3,), UNLABELLED)
    assert torch.equal(by_name(nothing, NAMES, ("cat", "bee", "ant"), "data"), nothing)


def test_parts_that_are_measured_on_keep_what_has_a_label() -> None:
    raw = source(20, 20, 20).parts["all"]
    hidden = raw.target.clone()
    hidden[::4] = UNLABELLED
    parts = {
        "train": raw,
        "val": replace(raw, target=hidden),
        "test": replace(raw, target=torch.full((60,), UNLABELLED)),
    }
    images = _assemble(replace(source(20, 20, 20), parts=parts), parse("drawn"))
    assert (len(images.train), len(images.val), len(images.test)) == (60, 45, 60)
    assert bool(images.val.labelled.all())
    assert "15 of 60 images of the validation part have no label and are left out" in images.notes
    assert not any("test part" in note for note in images.notes)  # nothing can be left


def test_there_must_be_a_label_to_hide() -> None:
    with pytest.raises(UserError, match=r"data\.labels\.share = 0\.5: no training image has a label; leave it out"):
        assembled(50, classes=(), labels={"share": 0.5})
