"""Targets that lie on the pixels are moved as the pixels are."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from classroomkd import data
from classroomkd.data import FixedViews, ImageSet, MemoryPixels, Part, Views, make_views
from classroomkd.data.loading import _assemble
from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.spec import IMAGE_VIEWS, SPATIAL_VIEWS, parse
from classroomkd.data.subsets import subset
from classroomkd.data.targets import CLASS, IMAGE, KEYPOINTS, TargetKind, mask
from classroomkd.errors import UserError

N, HEIGHT, WIDTH = 60, 33, 29
IGNORE = 255


def drawn(kind: TargetKind, times: int = 1) -> tuple[Tensor, Tensor]:
    """Images whose pixels say where they are from (0 means outside), and targets that say the same."""
    row = torch.arange(1, HEIGHT + 1).view(1, -1, 1).expand(N, -1, WIDTH)
    column = torch.arange(1, WIDTH + 1).view(1, 1, -1).expand(N, HEIGHT, -1)
    pixels = torch.stack([row, column, torch.arange(1, N + 1).view(-1, 1, 1).expand(row.shape)], 1).to(torch.uint8)
    if kind == IMAGE:
        return pixels, pixels.repeat_interleave(times, 2).repeat_interleave(times, 3)
    return pixels, row.contiguous()


def image_set(kind: TargetKind, times: int = 1) -> ImageSet:
    pixels, target = drawn(kind, times)
    raw = Raw(MemoryPixels(pixels), target, torch.arange(N), N, kind)
    return _assemble(Source("drawn", ("ground", "figure"), {"all": raw}, "none", "0" * 64), parse("puppets"))


def space_of(name: str, kind: TargetKind, times: int = 1) -> Views:
    return make_views(name, view_seed=3, image_size=(HEIGHT, WIDTH), images=image_set(kind, times))


@pytest.mark.parametrize("ignore", [IGNORE, -1])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", ["crop_flip", "crop", "flip", "none"])
def test_a_mask_goes_where_its_pixels_go(name: str, fixed: bool, ignore: int) -> None:
    space, (pixels, target) = space_of(name, mask(ignore)), drawn(mask(ignore))
    space = FixedViews(space, 1) if fixed else space
    ids = torch.arange(N)
    views = space.pick(1, ids, 0)
    shown, moved = space.render(pixels, target, ids, views)
    assert torch.equal(shown, space.apply(pixels, ids, views))
    assert torch.equal(moved, torch.where(shown[:, 0] == 0, ignore, shown[:, 0].long()))
    if name.startswith("crop"):
        assert (moved == ignore).any()


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("name", SPATIAL_VIEWS["image"])
def test_an_image_of_a_multiple_of_the_size_goes_where_its_pixels_go(name: str, times: int) -> None:
    space, (pixels, target) = space_of(name, IMAGE, times), drawn(IMAGE, times)
    ids = torch.arange(N)
    shown, moved = space.render(pixels, target, ids, space.pick(1, ids, 0))
    assert torch.equal(moved, shown.repeat_interleave(times, 2).repeat_interleave(times, 3))


def test_a_resized_mask_is_the_nearest_pixel_of_the_crop() -> None:
    space, (pixels, target) = space_of("resized_crop", mask(IGNORE)), drawn(mask(IGNORE))
    ids = torch.arange(N)
    views = space.pick(1, ids, 0)
    shown, rows = space.render(pixels, target, ids, views)
    columns = space.move(pixels[:, 1].long(), ids, views)
    # Bilinear values of a ramp are the coordinates themselves; a nearest pixel is half a pixel away at most, and uint8
    # rounds by another half.
    for exact, nearest in ((shown[:, 0].long(), rows), (shown[:, 1].long(), columns)):
        assert (exact - nearest).abs().max() <= 1
        assert (exact == nearest).float().mean() > 0.6
    assert not (rows == IGNORE).any()


def test_of_randaugment_a_mask_follows_what_moves_pixels() -> None:
    space, (pixels, target) = space_of("randaugment", mask(-1)), drawn(mask(-1))
    ids = torch.arange(N)
    moves, still = 0, 0
    for epoch in range(8):
        views = space.pick(1, ids, epoch)
        crop, variants = space.operations(ids, views)
        shown, moved = space.render(pixels, target, ids, views)
        geometric = ((variants >= 2) & (variants < 12)) | (variants < 2)
        rows = geometric.all(0)
        assert torch.equal(moved[rows], torch.where(shown[rows, 0] == 0, -1, shown[rows, 0].long()))
        coloured = ((variants >= 12) | (variants < 2)).all(0)
        assert torch.equal(moved[coloured], space._crop.move(target, ids, crop)[coloured])
        moves, still = moves + int(rows.sum()), still + int(coloured.sum())
    assert min(moves, still) > 50


@pytest.mark.parametrize("name", SPATIAL_VIEWS["mask"])
def test_alone_is_bitwise_what_it_is_in_a_batch(name: str) -> None:
    space, (pixels, target) = space_of(name, mask()), drawn(mask())
    target = (target * 7 + pixels[:, 1] * 3 + pixels[:, 2]) % 5
    ids = torch.arange(N) * 1_000_003
    views = space.pick(5, ids, 2)
    _, together = space.render(pixels, target, ids, views)
    assert together.dtype == target.dtype
    untouched = space.render(pixels, target, ids, torch.full_like(ids, space.identity))
    assert torch.equal(untouched[0], pixels)
    assert torch.equal(untouched[1], target)
    for row in range(N):
        some = slice(row, row + 1)
        assert torch.equal(space.render(pixels[some], target[some], ids[some], views[some])[1], together[some]), row
    assert torch.equal(pickle.loads(pickle.dumps(space)).render(pixels, target, ids, views)[1], together)


@pytest.mark.parametrize("name", IMAGE_VIEWS)
def test_pixels_and_definition_do_not_depend_on_the_kind_of_target(name: str) -> None:
    plain = make_views(name, view_seed=3, image_size=(HEIGHT, WIDTH))
    assert plain.target_kind == CLASS
    for kind in (mask(), IMAGE):
        if name not in SPATIAL_VIEWS[kind.name]:
            with pytest.raises(UserError, match=rf"data\.views: '{name}' cannot move a target that is an? {kind.name}"):
                space_of(name, kind)
            continue
        space, (pixels, _), ids = space_of(name, kind), drawn(kind), torch.arange(N)
        views = plain.pick(0, ids, 0)
        assert space.definition == plain.definition
        assert (space.count, space.identity) == (plain.count, plain.identity)
        assert torch.equal(space.pick(0, ids, 0), views)
        assert torch.equal(space.apply(pixels, ids, views), plain.apply(pixels, ids, views))


def test_masks_are_split_evenly_and_keep_their_kind() -> None:
    kind = mask(IGNORE)
    images = image_set(kind)
    assert images.target_kind == kind
    assert images.to("cpu").target_kind == kind
    assert [len(part) for part in (images.train, images.val, images.test)] == [43, 5, 12]
    for part in (images.train, images.val, images.test):
        assert part.target_kind == kind
        assert part.target.shape == (len(part), HEIGHT, WIDTH)
        assert torch.equal(part.batch(torch.arange(len(part)))[0][:, 0].long(), part.target)
    some = subset(images.train, 10)
    assert (len(some), some.target_kind) == (10, kind)
    assert set(subset(images.train, 5).ids.tolist()) <= set(some.ids.tolist())
    assert images.train.digest() != replace(images.train, target=images.train.target + 1).digest()


def test_a_target_that_does_not_lie_on_the_pixels_is_caught() -> None:
    pixels, target = drawn(mask())
    index = torch.arange(N)
    for wrong, kind in (
        (target[:, 1:], mask()),
        (target.float(), mask()),
        (target.to(torch.uint8), mask(-1)),
        (pixels.repeat_interleave(2, 2), IMAGE),
        (pixels.long(), IMAGE),
    ):
        with pytest.raises(AssertionError):
            Part(MemoryPixels(pixels), wrong, index, index, kind)


def test_persons_say_that_their_targets_are_joints() -> None:
    people = data.load({"source": "puppets", "options": {"train": 30, "test": 20}}, task="pose")
    assert people.target_kind == KEYPOINTS
    assert make_views("person", view_seed=0, image_size=people.shape[1:], images=people).target_kind == KEYPOINTS
    with pytest.warns(DeprecationWarning, match=r"make_views\(people=…\) is called images now"):
        make_views("person", view_seed=0, image_size=people.shape[1:], people=people)


def test_the_old_names_of_what_views_do_are_read_for_a_while() -> None:
    space, (pixels, _), ids = make_views("crop", view_seed=0, image_size=(HEIGHT, WIDTH)), drawn(CLASS), torch.arange(N)
    with pytest.warns(DeprecationWarning, match="CropFlip.look is called render now"):
        shown, _ = space.look(pixels, ids, ids, ids)
    assert torch.equal(shown, space.apply(pixels, ids, ids))
