"""Several views of each sample in one step: replayable, and the first as ever."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from classroomkd import data
from classroomkd.data.views import FixedViews, Views, make_views
from classroomkd.errors import UserError
from classroomkd.train.inputs import Batches, check_views


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 40, "test": 20, "image_size": 16}})


def space(images: Any, name: str = "crop_flip") -> Views:
    return make_views(name, view_seed=0, image_size=images.shape[1:]).over(images.train)


@pytest.mark.parametrize("fixed", [None, 4])
def test_three_views_are_three_replayable_views_and_the_first_is_todays(images: Any, fixed: int | None) -> None:
    views = space(images) if fixed is None else FixedViews(space(images), fixed)
    alone, several = (Batches(images.train, views, 16, seed=3, shown=shown) for shown in (1, 3))
    for epoch in (0, 1):
        for one, three in zip(alone.epoch(epoch), several.epoch(epoch), strict=True):
            assert three["pixels"].shape == (3, *one["pixels"].shape)
            assert torch.equal(three["pixels"][0], one["pixels"])
            assert all(torch.equal(three[key], one[key]) for key in ("ids", "views", "target"))
            ids = three["ids"]
            further = views.others(3, ids, epoch, 2)
            assert further.shape == (2, len(ids))
            places = (images.train.ids == ids[:, None]).int().argmax(1)
            pixels = images.train.batch(places)[0]
            for shown, which in zip(three["pixels"][1:], further, strict=True):
                assert torch.equal(shown, views.apply(pixels, ids, which))
            assert (further != three["views"]).any(1).all()
            assert (further[0] != further[1]).any()
    assert torch.equal(views.others(3, ids, 1, 2)[0], views.others(3, ids, 1, 5)[0])
    again = next(Batches(images.train, views, 16, seed=3, shown=3).epoch(1, 1))["pixels"]
    assert torch.equal(again, list(several.epoch(1))[1]["pixels"])


def test_a_sample_that_is_shown_again_has_other_views(images: Any) -> None:
    views, ids = space(images), torch.arange(8)
    first, second = (views.others(0, ids, 0, 2, torch.full((8,), n)) for n in (0, 1))
    assert (first != second).any(1).all()


@pytest.mark.parametrize(
    ("name", "fixed", "sentence"),
    [
        ("none", None, "none has one view of a sample; set data.views"),
        ("crop_flip", 2, "fixed has 2 views of a sample"),
        ("mixup", None, "mixup views mix samples"),
        ("crop_flip", 3, None),
        ("crop_flip", None, None),
        ("randaugment", None, None),
    ],
)
def test_views_that_cannot_be_shown_are_refused(
    images: Any, name: str, fixed: int | None, sentence: str | None
) -> None:
    views = space(images, name) if fixed is None else FixedViews(space(images, name), fixed)
    check_views(1, views, "arm 'a'")
    if sentence is None:
        check_views(3, views, "arm 'a'")
        return
    with pytest.raises(UserError) as error:
        check_views(3, views, "arm 'a'")
    assert str(error.value).startswith("arm 'a': a step shows 3 views of each sample, and ")
    assert sentence in str(error.value) or fixed is not None


def test_joints_move_with_the_picture() -> None:
    people = data.load({"source": "puppets", "options": {"train": 20, "test": 20, "image_size": 32}}, task="pose")
    views = make_views("person", view_seed=0, image_size=people.people.size, images=people)
    with pytest.raises(UserError, match="move what is to be learned with the picture; views: 1"):
        check_views(2, views, "arm 'a'")
