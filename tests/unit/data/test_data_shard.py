"""Shards of the training images: disjoint, together everything, stratified; the other parts stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from classroomkd import data
from classroomkd._handed import handed
from classroomkd.data import split, subsets
from classroomkd.data.images import ImageSet, MemoryPixels, Part
from classroomkd.data.loading import _assemble
from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.spec import parse
from classroomkd.data.targets import mask
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe

PUPPETS = {"source": "puppets", "options": {"train": 210, "test": 30, "image_size": 32}}

KNOWN = [1, 2, 3, 6, 9, 10, 12, 15]  # of 16 samples of two classes in turn, the first of two shards


def puppets(shard: str | None, **keys: Any) -> ImageSet:
    return data.load({**PUPPETS, "shard": shard}, **keys)


def seen(images: ImageSet) -> set[int]:
    """Ids of what is left for training, validation included."""
    return set(images.train.ids.tolist()) | set(images.val.ids.tolist())


def same(a: Part, b: Part) -> bool:
    everything = torch.arange(min(len(a), len(b)))
    pairs = zip(a.batch(everything), b.batch(everything), strict=True)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in pairs)


def lot(*counts: int) -> TensorDataset:
    """One lot of images, without a test part, of as many a class."""
    target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.arange(len(target), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    return TensorDataset(images.contiguous(), target)


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 7])
def test_shards_are_disjoint_stratified_and_together_everything(shards: int) -> None:
    target = np.repeat(np.arange(3), [40, 7, 24])
    ids = np.arange(500, 571)
    places = [split.shard(target, ids, k, shards, seed=0) for k in range(1, shards + 1)]
    assert sorted(np.concatenate(places)) == list(range(71))
    counts = np.array([np.bincount(target[kept], minlength=3) for kept in places])
    assert (np.ptp(counts, axis=0) <= 1).all()
    for kept in places:
        assert (np.diff(kept) > 0).all()


def test_shards_follow_from_seed_and_ids_and_are_known_by_heart() -> None:
    # They must never move: a student would be taught on what its mentors have seen.
    target, ids = np.arange(16) % 2, np.arange(16)
    assert split.shard(target, ids, 1, 2, seed=0).tolist() == KNOWN
    assert split.shard(target, ids, 1, 2, seed=1).tolist() != KNOWN
    turned = split.shard(target[::-1], ids[::-1], 1, 2, seed=0)  # the order in which samples are listed is nothing
    assert sorted(ids[::-1][turned].tolist()) == KNOWN
    half = split.take(target, ids, np.array([4, 4]), seed=0, purpose="limit")
    assert half.tolist() != KNOWN  # a stream of its own


def test_a_sample_that_is_missing_moves_one_other_at_most() -> None:
    target, ids = np.zeros(40, np.int64), np.arange(40)
    whole = [set(split.shard(target, ids, k, 2, seed=0).tolist()) for k in (1, 2)]
    for gone in range(40):
        left = np.delete(ids, gone)
        first = set(left[split.shard(target[:39], left, 1, 2, seed=0)].tolist())
        assert len(first & whole[1]) <= 1


def test_two_shards_of_puppets() -> None:
    everything, first, second = (puppets(shard) for shard in (None, "1/2", "2/2"))
    assert not seen(first) & seen(second)
    assert seen(first) | seen(second) == seen(everything)
    for images, each in ((first, 11), (second, 10)):
        classes = np.add(subsets.class_counts(images.train, 10), subsets.class_counts(images.val, 10))
        assert classes.tolist() == [each] * 10
        assert len(images.val) == 10
        assert same(images.test, everything.test)
        assert images.fingerprint == everything.fingerprint  # the content is the same
        assert images.train.digest() != everything.train.digest()  # what is trained on it is not
    assert first.mean != everything.mean  # measured on its own training part


def test_no_shard_and_one_shard_are_what_was() -> None:
    plain, without, whole = data.load(PUPPETS), puppets(None), puppets("1/1")
    for images in (without, whole):
        assert (images.mean, images.std, images.notes) == (plain.mean, plain.std, plain.notes)
        for part in ("train", "val", "test"):
            assert same(getattr(images, part), getattr(plain, part))
            assert getattr(images, part).digest() == getattr(plain, part).digest()


def test_test_is_split_off_before_and_the_limit_taken_after() -> None:
    given = lot(20, 20, 20)
    everything, first, second = (data.load(given, shard=shard) for shard in (None, "1/2", "2/2"))
    assert same(first.test, everything.test)
    assert same(second.test, everything.test)
    assert seen(first) | seen(second) == seen(everything)
    limited = data.load(given, shard="2/2", limit=12)
    assert len(seen(limited)) == 12  # of the shard's 24, and not of 48 before it was taken
    assert seen(limited) <= seen(second)


def test_parts_of_the_source_s_own_stay_whole() -> None:
    for shard in ("1/2", "2/2"):
        images = data.load((lot(8, 8), lot(3, 3), lot(4, 4)), shard=shard)
        assert (len(images.train), len(images.val), len(images.test)) == (8, 6, 8)


def test_targets_on_the_pixels_have_no_class_to_stratify_by() -> None:
    raw = Raw(MemoryPixels(torch.full((30, 3, 8, 8), 99, dtype=torch.uint8)), torch.zeros(30, 8, 8).long(),
              torch.arange(30), 30, mask(255))  # fmt: skip
    source = Source("drawn", ("ground", "figure"), {"all": raw}, "none", "0" * 64)
    first, second = (_assemble(source, parse("drawn", shard=shard)) for shard in ("1/2", "2/2"))
    assert len(seen(first)) == len(seen(second)) == 12
    assert not seen(first) & seen(second)
    with pytest.raises(UserError, match=r"data\.shard: 25 shards need 25 training images; there are 24\. "):
        _assemble(source, parse("drawn", shard="1/25"))


def test_more_shards_than_a_class_has_images() -> None:
    with pytest.raises(UserError, match=r"data\.shard: 4 shards need 4 training images of every class; '1' has 3\. "):
        data.load((lot(9, 3), lot(2, 2)), shard="1/4")
    assert len(data.load((lot(9, 3), lot(1, 1), lot(2, 2)), shard="1/3").train) == 4
    with pytest.raises(UserError, match=r"validation part of .*; take fewer shards \(data\.shard\), "):
        data.load((lot(3, 3), lot(2, 2)), shard="1/3")


def test_a_whole_image_set_cannot_be_sharded() -> None:
    images = data.load(lot(8, 8))
    assert data.load(images) is images
    for spec in (images, {"source": images}):
        with pytest.raises(UserError, match=r"data\.shard = '1/2': the data are a whole ImageSet"):
            data.load(spec, shard="1/2")


def test_a_recipe_with_it_and_one_without() -> None:
    rest = {"student": "convnet8", "method": "none"}
    recipe = make_recipe({"data": {**PUPPETS, "shard": "2/2"}, **rest})
    assert seen(data.load(recipe.data)) == seen(puppets("2/2"))
    assert make_recipe({"data": PUPPETS, **rest}).data.shard is None


def test_distill_takes_it_beside_data_of_every_kind() -> None:
    named = handed("name", "convnet8", [], "puppets", "none", [0], {"shard": "1/2"})
    assert named.content["data"] == {"source": "puppets", "shard": "1/2"}
    given = handed("name", "convnet8", [], lot(8, 8), "none", [0], {"shard": "1/2"})
    assert given.content["data"]["shard"] == "1/2"
    assert len(seen(data.load(given.source))) == 6  # half of what the test part leaves
