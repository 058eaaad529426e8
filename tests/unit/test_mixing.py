"""Batches of samples with labels and without in a given ratio: ``train.unlabelled_ratio``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from classroomkd import data
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.targets import UNLABELLED
from classroomkd.data.views import FixedViews
from classroomkd.errors import UserError
from classroomkd.recipe import load_recipe, make_recipe
from classroomkd.recipe.dump import recipe_yaml
from classroomkd.run.opening import open_context
from classroomkd.train.inputs import Batches, shared
from classroomkd.train.mixing import Mixing

SMALLEST = {"data": "puppets", "student": "resnet8", "method": "none"}


def part(labelled: int, unlabelled: int) -> Part:
    """Ids from 100; those with a label come first."""
    count = labelled + unlabelled
    target = torch.full((count,), UNLABELLED)
    target[:labelled] = torch.arange(labelled) % 3
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return Part(MemoryPixels(pixels), target, torch.arange(count) + 100, torch.arange(count))


def batches(labelled: int, unlabelled: int, batch: int, ratio: float | None, **keys: Any) -> Batches:
    views = data.make_views("crop", view_seed=0, image_size=(8, 8))
    return Batches(part(labelled, unlabelled), views, batch, 3, ratio=ratio, **keys)


def kinds(batch: dict[str, Tensor]) -> tuple[int, int]:
    """How many samples of a batch have a label, and how many have none."""
    known = int((batch["target"] >= 0).sum())
    return known, len(batch["target"]) - known


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "batch", "ratio", "each"),
    [
        (40, 120, 16, 1.0, (8, 8)),
        (120, 40, 16, 1.0, (8, 8)),
        (40, 120, 16, 3.0, (4, 12)),
        (40, 120, 10, 2.0, (3, 7)),
        (5, 95, 20, 100.0, (1, 19)),  # one of each at least
        (95, 5, 20, 0.01, (19, 1)),
        (7, 9, 4, 1.0, (2, 2)),
        (1, 99, 10, 1.0, (5, 5)),
    ],
)
def test_every_batch_holds_both_and_the_longer_is_shown_once(
    labelled: int, unlabelled: int, batch: int, ratio: float, each: tuple[int, int]
) -> None:
    ours = batches(labelled, unlabelled, batch, ratio, drop_last=False)
    found = list(ours.epoch(0))
    assert [len(one["ids"]) for one in found] == ours.sizes
    assert [kinds(one) for one in found[: -1 if len(found) > 1 else None]] == [each] * (len(found) - 1 or 1)
    last = kinds(found[-1])
    assert min(last) >= 1
    counts = torch.bincount(torch.cat([one["ids"] for one in found]) - 100, minlength=labelled + unlabelled)
    known = ours.part.target >= 0
    long, short = counts[~known], counts[known]
    if unlabelled / each[1] < labelled / each[0]:
        long, short = short, long
    assert bool((long == 1).all())
    assert int(short.max() - short.min()) <= 1  # each as often as the others, up to one
    assert len(found) == -(-max(unlabelled / each[1], labelled / each[0]) // 1)


def test_the_order_is_of_seed_and_epoch_and_the_other_kind_is_shuffled_anew() -> None:
    ours = batches(10, 100, 20, 1.0)
    first, again, later = ([one["ids"] for one in ours.epoch(epoch)] for epoch in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, later))
    rounds = [ids[ids < 110] for ids in first]
    assert all(sorted(ids.tolist()) == list(range(100, 110)) for ids in rounds)
    assert len({tuple(ids.tolist()) for ids in rounds}) == len(rounds)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_what_one_would_see(world: int) -> None:
    whole = list(batches(30, 90, 24, 1.0, drop_last=False).epoch(2))
    ranks = [list(batches(30, 90, 24, 1.0, drop_last=False, rank=r, world=world).epoch(2)) for r in range(world)]
    for one, *theirs in zip(whole, *ranks, strict=True):
        shares = shared(len(one["ids"]), world)
        for key in ("ids", "views", "target", "pixels"):
            assert torch.equal(torch.cat([mine[key][:n] for mine, n in zip(theirs, shares, strict=True)]), one[key])
        if len(one["ids"]) == 24:
            assert all(min(kinds(mine)) >= 24 // world // 2 for mine in theirs)  # each rank has both kinds


@pytest.mark.parametrize("done", [1, 3, 5])
def test_an_epoch_goes_on_where_it_was_left(done: int) -> None:
    ours = batches(15, 90, 24, 2.0)
    whole = list(ours.epoch(4))
    for one, two in zip(whole[done:], ours.epoch(4, done), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_sample_that_is_shown_again_has_another_view() -> None:
    found = list(batches(4, 200, 20, 1.0).epoch(0))
    views = torch.cat([one["views"][one["target"] >= 0] for one in found])
    assert len(views) >= 200
    assert len(views.unique()) > 60  # of 81; one view a sample would be 4
    ours = batches(4, 200, 20, 1.0)
    shown = {(int(i), int(v)) for one in ours.epoch(0) for i, v in zip(one["ids"], one["views"], strict=True)}
    plain = {(int(i), int(v)) for i, v in zip(ours.part.ids, ours.views.pick(3, ours.part.ids, 0), strict=True)}
    assert plain <= shown  # the first time it is the epoch's own
    stored = FixedViews(data.make_views("crop", view_seed=0, image_size=(8, 8)), 4)
    fixed = Batches(part(4, 200), stored, 20, 3, ratio=1.0)
    assert len(torch.cat([one["views"] for one in fixed.epoch(1)]).unique()) == 1  # what is stored is one an epoch


def test_without_a_ratio_nothing_changes() -> None:
    ours = batches(30, 90, 16, None)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 5)
    assert torch.equal(torch.cat([one["ids"] for one in ours.epoch(5)]) - 100, torch.randperm(120, generator=generator))


def test_a_small_last_batch_is_left_out_as_elsewhere() -> None:
    views = data.make_views("crop", view_seed=0, image_size=(8, 8))
    samples = part(20, 66)  # 8 of 16 are without a label: two are left, and so a batch of four
    for drop, whole, last, dropped in ((None, False, [4], 0), (None, True, [4], 0), (True, False, [], 2)):
        ours = Batches(samples, views, 16, 0, ratio=1.0, drop_last=drop, whole_batch=whole)
        assert (ours.sizes, ours.dropped) == ([16] * 8 + last, dropped)
    assert Mixing(part(20, 65), 16, 1.0, None, whole_batch=True).dropped == 1  # a batch of two, below a quarter


def test_where_there_is_nothing_to_mix() -> None:
    with pytest.raises(UserError, match=r"unlabelled_ratio = 2: no training image is without a label; .*unlabelled"):
        batches(20, 0, 8, 2.0)
    with pytest.raises(UserError, match=r"unlabelled_ratio = 2: no training image has a label; leave the key out"):
        batches(0, 20, 8, 2.0)
    with pytest.raises(UserError, match="a batch of one has one kind; set"):
        batches(10, 10, 1, 2.0)


def test_a_run_says_so_when_its_data_are_opened(tmp_path: Any) -> None:
    puppets = {"source": "puppets", "options": {"train": 100, "test": 20, "image_size": 32}}
    recipe = make_recipe({**SMALLEST, "data": puppets, "train": {"unlabelled_ratio": 1.5}, "device": "cpu"})
    with pytest.raises(UserError, match=r"train\.unlabelled_ratio = 1\.5: no training image is without a label"):
        open_context(recipe, tmp_path)
    some = make_recipe({**SMALLEST, "data": {**puppets, "labels": {"share": 0.2}}, "train": {"unlabelled_ratio": 1.5}})
    assert open_context(some, tmp_path).data.unlabelled == 70  # of 9 a class two keep theirs


def test_the_key_of_a_recipe(tmp_path: Any) -> None:
    mentors = [{"name": "big", "model": "resnet20", "train": {"epochs": 2}}]
    recipe = make_recipe({**SMALLEST, "mentors": mentors, "method": "kd", "train": {"unlabelled_ratio": 3}})
    assert recipe.train.unlabelled_ratio == 3
    assert recipe.mentors[0].train is not None
    assert recipe.mentors[0].train.unlabelled_ratio is None  # the student's alone
    file = tmp_path / "some.yaml"
    file.write_text(recipe_yaml(recipe))
    assert load_recipe(file) == recipe
    assert "unlabelled_ratio" not in recipe_yaml(make_recipe(SMALLEST))
    for wrong in (0, -1, "half"):
        with pytest.raises(UserError, match=r"train\.unlabelled_ratio = .*must be"):
            make_recipe({**SMALLEST, "train": {"unlabelled_ratio": wrong}})
    mentors[0] = replace_train(mentors[0], unlabelled_ratio=2)
    with pytest.raises(UserError, match=r"mentors\.0\.train\.unlabelled_ratio = 2: acts on the student alone"):
        make_recipe({**SMALLEST, "mentors": mentors, "method": "kd"})


def replace_train(mentor: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**mentor, "train": {**mentor["train"], **keys}}


def test_the_training_step_sees_both_kinds_in_any_order_of_parts() -> None:
    turned = part(30, 90)
    turned = replace(turned, target=turned.target.flip(0))
    views = data.make_views("none", view_seed=0, image_size=(8, 8))
    for one in Batches(turned, views, 20, 0, ratio=1.0).epoch(0):
        assert abs(kinds(one)[0] - kinds(one)[1]) <= 1
