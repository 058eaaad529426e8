from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from classroomkd.data import FixedViews, MemoryPixels, Part, make_views, view_names
from classroomkd.data import rng as counter
from classroomkd.data.spec import ENDLESS_VIEWS, DataSettings, parse
from classroomkd.data.views.base import Views
from classroomkd.data.views.resized_crop import ResizedCrop
from classroomkd.errors import UserError


def images(count: int, height: int = 12, width: int = 10) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def views(name: str, view_seed: int = 0, size: tuple[int, int] = (12, 10)) -> Views:
    index = torch.arange(20)
    part = Part(MemoryPixels(images(20, *size)), index % 3, index * 7, index)
    return make_views(name, view_seed=view_seed, image_size=size).over(part)


def test_torch_and_numpy_draw_the_same_numbers() -> None:
    ids = torch.randint(-(2**62), 2**62, (500,))
    ours = counter.tensor_keys(-7, 3, ids, 5, ids).numpy().view(np.uint64)
    assert np.array_equal(ours, counter.keys(-7, np.int64(3), ids.numpy(), np.int64(5), ids.numpy()))


def test_crop_flip_is_what_a_loop_over_pixels_says() -> None:
    pixels = images(162)
    made = views("crop_flip").apply(pixels, torch.arange(162), torch.arange(162))
    padded = np.zeros((162, 3, 20, 18), np.uint8)
    padded[:, :, 4:16, 4:14] = pixels.numpy()
    for view in range(162):
        dy, dx, flip = view // 18, view // 2 % 9, view % 2
        want = padded[view, :, dy : dy + 12, dx : dx + 10]
        assert np.array_equal(made[view].numpy(), want[:, :, ::-1] if flip else want), view


@pytest.mark.parametrize(
    ("name", "count", "identity"), [("crop_flip", 162, 80), ("crop", 81, 40), ("flip", 2, 0), ("none", 1, 0)]
)
def test_enumeration_and_identity(name: str, count: int, identity: int) -> None:
    space, pixels = views(name), images(6)
    assert (space.count, space.identity) == (count, identity)
    made = space.apply(pixels, torch.arange(6), torch.full((6,), identity))
    assert torch.equal(made, pixels)
    assert made.data_ptr() != pixels.data_ptr()
    one = images(1).expand(count, -1, -1, -1)
    assert (
        len({image.numpy().tobytes() for image in space.apply(one, torch.arange(count), torch.arange(count))}) == count
    )


@pytest.mark.parametrize("name", view_names())
def test_alone_is_bitwise_what_it_is_in_a_batch(name: str) -> None:
    space, pixels = views(name, size=(33, 29)), images(37, 33, 29)
    ids = torch.arange(37) * 1_000_003
    picked = space.pick(5, ids, 2)
    together = space.apply(pixels, ids, picked)
    assert together.dtype == torch.uint8
    assert together.shape == pixels.shape
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(space.apply(pixels[order], ids[order], space.pick(5, ids[order], 2)), together[order])
    for row in range(37):
        some = slice(row, row + 1)
        assert torch.equal(space.pick(5, ids[some], 2), picked[some])
        assert torch.equal(space.apply(pixels[some], ids[some], picked[some]), together[some]), row


def test_views_without_bound_are_known_by_name() -> None:
    assert tuple(name for name in view_names() if views(name).count is None) == ENDLESS_VIEWS


@pytest.mark.parametrize("name", ENDLESS_VIEWS)
def test_an_unbounded_space_begins_with_the_untouched_image_and_follows_its_seed(name: str) -> None:
    space, pixels, ids = views(name, size=(33, 29)), images(37, 33, 29), torch.arange(37) * 1_000_003
    before = pixels.clone()
    made = space.apply(pixels, ids, torch.zeros_like(ids))
    assert torch.equal(made, pixels)
    assert made.data_ptr() != pixels.data_ptr()
    picked = space.pick(0, ids, 0)
    assert (picked > 0).all()
    shown = space.apply(pixels, ids, picked)
    for other in (pixels, space.apply(pixels, ids, picked + 1), views(name, 1, (33, 29)).apply(pixels, ids, picked)):
        assert (shown != other).flatten(1).any(1).float().mean() > 0.9
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", ENDLESS_VIEWS)
def test_fixed_views_show_the_base_views_behind_their_slots(name: str) -> None:
    base, pixels, ids = views(name), images(50), torch.arange(50)
    fixed = FixedViews(base, 3)
    for slot in range(3):
        slots = torch.full_like(ids, slot)
        behind = fixed.base_views(ids, slots)
        assert (behind > 0).all()
        wanted = base.apply(pixels, ids, behind)
        for space in (fixed, fixed.prefetch(ids, slots)):
            shown, target = space.render(pixels, ids, ids, slots)
            assert torch.equal(shown, wanted)
            assert torch.equal(target, ids)
    assert torch.equal(fixed.eval_view(pixels, ids)[0], pixels)


@pytest.mark.parametrize("name", view_names())
def test_a_space_goes_to_other_processes(name: str) -> None:
    space, pixels, ids = views(name), images(30), torch.arange(30)
    picked = space.pick(0, ids, 1)
    wanted = space.apply(pixels, ids, picked)
    assert torch.equal(pickle.loads(pickle.dumps(space)).apply(pixels, ids, picked), wanted)


def test_pick_is_uniform_over_the_162_cells() -> None:
    space, ids = views("crop_flip"), torch.arange(20_000)
    counts = sum(torch.bincount(space.pick(1, ids, epoch), minlength=162) for epoch in range(5))
    expected = 100_000 / 162
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert 110 < chi < 222  # 161 degrees of freedom: both ends beyond p = 0.001


def test_pick_is_uniform_for_one_sample_over_epochs_and_seeds() -> None:
    space, one = views("crop"), torch.tensor([12345])
    drawn = torch.cat([space.pick(seed, one, epoch) for seed in range(40) for epoch in range(200)])
    chi = float(((torch.bincount(drawn, minlength=81) - 8000 / 81) ** 2 / (8000 / 81)).sum())
    assert 45 < chi < 125  # 80 degrees of freedom


def test_pick_depends_on_seed_epoch_and_id_only() -> None:
    space, ids = views("crop_flip"), torch.arange(1000)
    first = space.pick(0, ids, 0)
    assert torch.equal(first, views("crop_flip", view_seed=9).pick(0, ids, 0))  # finite views need no view seed
    for other in (space.pick(1, ids, 0), space.pick(0, ids, 1), space.pick(0, ids + 1000, 0)):
        assert (first == other).float().mean() < 0.03


def test_resized_crop_identity_bounds_and_seed() -> None:
    space, pixels = views("resized_crop", size=(64, 48)), images(200, 64, 48)
    assert isinstance(space, ResizedCrop)
    ids = torch.arange(200)
    assert torch.equal(space.apply(pixels, ids, torch.zeros(200, dtype=torch.int64)), pixels)
    picked = space.pick(0, ids, 0)
    assert (picked > 0).all()
    box, flip = space.boxes(ids, picked)
    top, left, height, width = box.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 64).all()
    assert (left + width <= 48).all()
    area, ratio = height * width / (64 * 48), width / height
    assert (area > 0.33).all()
    assert (area < 1.01).all()
    assert (ratio > 0.7).all()
    assert (ratio < 1.42).all()
    assert 0.35 < flip.float().mean() < 0.65
    assert not torch.equal(
        space.apply(pixels, ids, picked), views("resized_crop", 1, (64, 48)).apply(pixels, ids, picked)
    )


def test_resized_crop_of_a_very_long_picture_stays_inside() -> None:
    space, ids = views("resized_crop", size=(8, 200)), torch.arange(500)
    assert isinstance(space, ResizedCrop)
    top, left, height, width = space.boxes(ids, space.pick(0, ids, 0))[0].unbind(1)
    assert int((top + height).max()) == 8
    assert int((left + width).max()) <= 200
    assert len(width.unique()) > 5


def test_resized_crop_shows_the_crop_it_names() -> None:
    space = views("resized_crop", size=(40, 40))
    assert isinstance(space, ResizedCrop)
    ramp = torch.arange(40) * 6
    pixels = torch.stack(
        [ramp[None, :].expand(40, 40), ramp[:, None].expand(40, 40), torch.zeros(40, 40, dtype=torch.int64)]
    )
    ids = torch.arange(64)
    picked = space.pick(0, ids, 0)
    made = space.apply(pixels.to(torch.uint8).expand(64, -1, -1, -1), ids, picked).float()
    box, flip = space.boxes(ids, picked)
    position = (torch.arange(40) + 0.5) / 40
    for row in range(64):
        top, left, height, width = box[row].tolist()
        x = (left + position * width - 0.5).clamp(left, left + width - 1) * 6
        y = (top + position * height - 0.5).clamp(top, top + height - 1) * 6
        assert (made[row, 0] - (x.flip(0) if flip[row] else x)[None, :]).abs().max() <= 0.51
        assert (made[row, 1] - y[:, None]).abs().max() <= 0.51


@pytest.mark.parametrize("V", [1, 4, 16])
def test_fixed_views_come_once_per_round_in_fresh_orders(V: int) -> None:
    fixed, ids = FixedViews(views("crop_flip"), V), torch.arange(300)
    assert fixed.count == V
    rounds = [torch.stack([fixed.pick(3, ids, turn * V + epoch) for epoch in range(V)]) for turn in range(3)]
    for turn in rounds:
        assert torch.equal(turn.sort(0).values, torch.arange(V)[:, None].expand(-1, 300))
    if V > 1:
        assert not torch.equal(rounds[0], rounds[1])
        assert not torch.equal(rounds[0], torch.stack([fixed.pick(4, ids, epoch) for epoch in range(V)]))
    # One slot for all samples of an epoch: its answers lie in one piece. The views behind it are each sample's own.
    assert all(
        len(turn[i].unique()) == 1 and int(turn[i, 0]) == fixed.slot(3, i) for turn in rounds[:1] for i in range(V)
    )
    assert len(fixed.base_views(ids, fixed.pick(3, ids, 0)).unique()) > 100


def test_fixed_views_are_distinct_uniform_and_pure() -> None:
    base = views("crop_flip", view_seed=2)
    fixed, ids = FixedViews(base, 8), torch.arange(5000)
    slots = torch.stack([fixed.base_views(ids, torch.full_like(ids, slot)) for slot in range(8)])
    assert (slots.sort(0).values.diff(dim=0) > 0).all()
    for slot in range(8):
        chi = float(((torch.bincount(slots[slot], minlength=162) - 5000 / 162) ** 2 / (5000 / 162)).sum())
        assert 105 < chi < 228
    pixels, some = images(50), ids[:50]
    chosen = fixed.pick(0, some, 3)
    assert torch.equal(fixed.apply(pixels, some, chosen), base.apply(pixels, some, fixed.base_views(some, chosen)))
    other = FixedViews(views("crop_flip", view_seed=3), 8)
    assert (other.base_views(ids, ids % 8) == fixed.base_views(ids, ids % 8)).float().mean() < 0.03


def test_fixed_views_of_an_unbounded_space() -> None:
    fixed, ids = FixedViews(views("resized_crop"), 4), torch.arange(100)
    drawn = torch.stack([fixed.base_views(ids, torch.full_like(ids, slot)) for slot in range(4)])
    assert (drawn > 0).all()
    assert len(drawn.unique()) == 400


def test_definitions_tell_apart_what_differs() -> None:
    spaces: list[Views] = [views(name) for name in view_names()]
    spaces += [views("crop_flip", 0, (16, 10)), FixedViews(views("crop_flip"), 4)]
    spaces += [views(name, *more) for name in ENDLESS_VIEWS for more in ((1,), (0, (16, 10)))]
    spaces += [FixedViews(views("crop_flip"), 5), FixedViews(views("crop_flip", 1), 4)]
    assert len({space.definition for space in spaces}) == len(spaces)
    assert views("crop_flip", 0).definition == views("crop_flip", 1).definition


def test_errors_name_the_remedy() -> None:
    with pytest.raises(UserError, match="did you mean 'crop_flip'"):
        views("cropflip")
    with pytest.raises(UserError, match="only 2 views"):
        FixedViews(views("flip"), 3)
    with pytest.raises(UserError, match="at least 1"):
        FixedViews(views("flip"), 0)


def test_the_spec_knows_every_view_by_name() -> None:
    for name in view_names():
        assert parse({"source": "puppets", "views": name}) == DataSettings(source="puppets", views=name)
    with pytest.raises(UserError, match=r"data\.views.*did you mean 'resized_crop'"):
        parse({"source": "puppets", "views": "resizedcrop"})


def test_a_view_of_nothing() -> None:
    for name in view_names():
        none = torch.arange(0)
        assert views(name).apply(images(0), none, none).shape == (0, 3, 12, 10)
