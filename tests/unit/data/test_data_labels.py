"""Labels that training does not see (``data.labels``): which, how many, and who goes on seeing them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from classroomkd import data
from classroomkd.data import subsets
from classroomkd.data.images import ImageSet
from classroomkd.data.loading import _assemble
from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.spec import parse
from classroomkd.data.targets import UNLABELLED, mask
from classroomkd.errors import UserError
from classroomkd.recipe import load_recipe, make_recipe
from classroomkd.recipe.dump import recipe_yaml

PUPPETS = {"source": "puppets", "options": {"train": 200, "test": 30, "image_size": 32}}
SMALLEST = {"student": "resnet8", "method": "none"}


def puppets(share: float | None, **keys: Any) -> ImageSet:
    return data.load({**PUPPETS, "labels": None if share is None else {"share": share}}, **keys)


def seen(images: ImageSet) -> set[int]:
    return set(images.train.ids[images.train.labelled].tolist())


def test_share_hides_labels_of_training_images_alone() -> None:
    whole, some = puppets(None), puppets(0.25)
    assert subsets.class_counts(some.train, 10) == [5] * 10  # of 18, 4.5 rounded up
    assert some.unlabelled == 130
    assert torch.equal(some.train.ids, whole.train.ids)
    known = some.train.labelled
    assert torch.equal(some.train.target[known], whole.train.target[known])
    assert set(some.train.target[~known].tolist()) == {UNLABELLED}
    for name in ("val", "test"):
        mine, theirs = getattr(some, name), getattr(whole, name)
        assert mine.digest() == theirs.digest()
    assert (some.mean, some.std) == (whole.mean, whole.std)
    assert any("50 of 180 training images have a label" in note for note in some.notes)
    assert whole.notes == puppets(1).notes


def test_stored_answers_stay_of_use_and_what_was_trained_does_not() -> None:
    whole, some = puppets(None), puppets(0.5)
    assert some.fingerprint == whole.fingerprint
    assert some.train.digest() != whole.train.digest()
    assert puppets(1).train.digest() == whole.train.digest()


def test_a_larger_share_contains_a_smaller_one_and_the_seed_is_the_splits() -> None:
    shares = [seen(puppets(share)) for share in (0, 0.01, 0.1, 0.3, 0.7, 1)]
    assert [len(one) for one in shares] == [0, 10, 20, 50, 130, 180]
    for smaller, larger in pairwise(shares):
        assert smaller <= larger
    assert seen(puppets(0.1)) == shares[2]
    assert seen(puppets(0.1, split_seed=1)) != shares[2]


def test_at_least_one_a_class_keeps_its_label() -> None:
    target = torch.arange(2).repeat_interleave(torch.tensor([40, 4]))
    images = torch.arange(44, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32) + 100
    some = data.load(TensorDataset(images.contiguous(), target), labels={"share": 0.01})
    assert subsets.class_counts(some.train, 2) == [1, 1]


def test_a_limit_and_a_shard_come_first() -> None:
    some = puppets(0.5, limit=100, shard="1/2")
    assert len(some.train) + len(some.val) == 100
    assert some.unlabelled == 40  # of 90; 5 of 9 keep theirs


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (0.1, "must be a mapping"),
        ({}, "says nothing; give share"),
        ({"share": 1.5}, "share must be a share from 0 (no label at all) to 1"),
        ({"share": "half"}, "share must be a number"),
        ({"shares": 0.5}, "has the unknown key 'shares' (did you mean 'share'?)"),
    ],
)
def test_what_labels_may_not_be(labels: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        data.load({**PUPPETS, "labels": labels})
    assert f"data.labels = {labels!r}: {sentence}" in str(caught.value)
    with pytest.raises(UserError, match=r"data\.labels"):
        make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": labels}})


def test_all_mistakes_of_a_recipe_are_in_one_message() -> None:
    with pytest.raises(UserError) as caught:
        make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": {"share": -1, "sheer": 1}, "limit": 0}})
    for place in ("data.labels.share = -1", "data.labels.sheer", "data.limit = 0"):
        assert place in str(caught.value)


def test_a_recipe_holds_its_labels(tmp_path: Any) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("data: {source: puppets, labels: {share: 0.1}}\nstudent: resnet8\nmethod: none\n")
    recipe = load_recipe(file)
    assert "labels:\n    share: 0.1\n" in recipe_yaml(recipe)
    file.write_text(recipe_yaml(recipe))
    assert load_recipe(file) == recipe
    assert "labels" not in recipe_yaml(make_recipe({**SMALLEST, "data": "puppets"}))
    assert data.load(make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": {"share": 0}}}).data).unlabelled == 180


def test_targets_that_are_no_classes_refuse_labels() -> None:
    with pytest.raises(UserError, match=r"data\.labels: is for images with a class each, not for persons"):
        data.load({**PUPPETS, "labels": {"share": 0.1}}, task="pose")
    with pytest.raises(UserError, match=r"data\.labels = .*is for images with a class each, not for"):
        make_recipe({"data": {"source": "puppets", "labels": {"share": 0.1}}, "task": "pose", "student": "pose_tiny",
                     "method": "none"})  # fmt: skip
    pixels = data.MemoryPixels(torch.full((20, 3, 32, 32), 100, dtype=torch.uint8))
    raw = Raw(pixels, torch.zeros(20, 32, 32, dtype=torch.uint8), torch.arange(20), 20, mask(255))
    with pytest.raises(UserError, match="not for targets of the kind 'mask'"):
        _assemble(Source("drawn", ("sky",), {"all": raw}, "crop", "mark"), parse("drawn", labels={"share": 0.5}))


def test_an_image_set_that_is_whole_refuses_labels() -> None:
    with pytest.raises(UserError, match=r"data\.labels = \{'share': 0\.1\}: the data are a whole ImageSet"):
        data.load(puppets(None), labels={"share": 0.1})
