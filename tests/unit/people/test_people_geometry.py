"""Where joints are after views: dots painted at the joints must lie where the targets say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from people_dots import COUNT, SIZE, check_dots, image_set, views

from classroomkd.data import FixedViews, make_views
from classroomkd.data.keypoints.crops import region
from classroomkd.data.skeleton import COCO


@pytest.mark.parametrize(
    ("change", "size", "scale"),
    [(change, size, 1.0) for change in ("rotation", "scale", "flip", "half_body", "all") for size in (None, (50, 80))]
    + [("all", (64, 64), 1.0), ("all", (128, 96), 1.3), ("all", None, 2.0)],
)
def test_a_view_moves_the_joint_with_the_pixels(change: str, size: tuple[int, int] | None, scale: float) -> None:
    only = {"scale": 0.35, "rotation": 45.0, "rotation_p": 1.0, "half_body": 1.0, "flip": 0.5}
    options = only if change == "all" else {key: value if change in key else 0.0 for key, value in only.items()}
    seen = 0
    for joint in (9, 16):
        images = image_set(joint, stored=scale, **options)
        pixels, target, ids = images.train.batch(torch.arange(COUNT))
        space = views(images)
        picked = torch.ones_like(ids) if space.count else space.pick(0, ids, joint)
        shown, moved = space.render(pixels, target, ids, picked, size)
        assert shown.shape[-2:] == (size or SIZE)
        if change in ("flip", "all"):
            mirrored = space._parameters(target, ids, picked)[-1]
            place = torch.where(mirrored, COCO.swap[joint], joint)
            assert mirrored.any()
        else:
            place = torch.full_like(ids, joint)
        seen += check_dots(shown, moved[torch.arange(COUNT), place], size or SIZE)
    assert seen >= 8


def test_a_flip_swaps_pairs_and_mirrors_at_the_last_pixel() -> None:
    images = image_set()
    pixels, target, ids = images.train.batch(torch.arange(COUNT))
    target[3, 7] = 0  # the left elbow has no label
    target[4, 5, 2] = 1
    space = views(images, "person_flip")
    assert (space.count, space.identity) == (2, 0)
    shown, moved = space.render(pixels, target, ids, torch.ones_like(ids))
    plain, _ = space.eval_view(pixels, target)
    assert torch.equal(shown, plain.flip(-1))
    swap = torch.tensor(COCO.swap)
    want = torch.cat([SIZE[1] - 1 - target[..., :1], target[..., 1:]], -1)[:, swap]
    labelled = target[:, swap, 2] > 0
    assert (moved[labelled] - want[labelled]).abs().max() < 1e-4
    assert (moved[3, 8] == 0).all()  # now the right elbow has none
    assert moved[4, 6, 2] == 1


@pytest.mark.parametrize("name", ["person", "person_mpii", "person_flip", "none"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_view_0_is_the_slice_to_the_bit(name: str, scale: float) -> None:
    images = image_set(stored=scale, sigma=0.7)
    pixels, target, ids = images.train.batch(torch.arange(COUNT))
    space = views(images, name)
    shown, moved = space.render(pixels, target, ids, torch.zeros_like(ids))
    plain, same = space.eval_view(pixels, target)
    assert torch.equal(shown, plain)
    assert torch.equal(same, target)
    assert (moved - target).abs().max() < 2e-5
    if scale == 1:
        x, y = images.people.canvas.offset
        assert torch.equal(plain, pixels[..., y : y + SIZE[0], x : x + SIZE[1]])


def test_all_sizes_show_the_same_view() -> None:
    images = image_set()
    pixels, target, ids = images.train.batch(torch.arange(COUNT))
    space = views(images)
    picked = space.pick(0, ids, 0)
    _, own = space.render(pixels, target, ids, picked)
    for size in [(64, 64), (200, 150)]:
        step, x, y = region(SIZE, size)
        for a, b in (
            (own, space.render(pixels, target, ids, picked, size)[1]),
            (target, space.eval_view(pixels, target, size)[1]),
        ):
            assert (a[..., 0] - (x + step * b[..., 0])).abs().max() < 1e-3
            assert (a[..., 1] - (y + step * b[..., 1])).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["person", "person_mpii", "person_flip", "none"])
def test_alone_is_bitwise_what_it_is_in_a_batch(name: str) -> None:
    images = image_set(sigma=1.0)
    pixels, target, ids = images.train.batch(torch.arange(COUNT))
    pixels = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    target[::3, ::2] = 0
    ids = ids * 1_000_003
    space = views(images, name, seed=5)
    picked = space.pick(5, ids, 2)
    for size in (None, (40, 56)):
        shown, moved = space.render(pixels, target, ids, picked, size)
        assert shown.dtype == torch.uint8
        for row in range(COUNT):
            some = slice(row, row + 1)
            one, joints = space.render(pixels[some], target[some], ids[some], picked[some], size)
            assert torch.equal(one, shown[some]), row
            assert torch.equal(joints, moved[some]), row
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))[:7]
        one, joints = space.render(pixels[order], target[order], ids[order], picked[order], size)
        assert torch.equal(one, shown[order])
        assert torch.equal(joints, moved[order])


def test_views_are_drawn_as_the_recipe_says() -> None:
    images = image_set()
    _, target, _ = images.train.batch(torch.arange(COUNT))
    ids = torch.arange(6000)
    target = target[ids % COUNT]
    space = views(images)
    centre, step, cos, sin, mirrored = space._parameters(target, ids, space.pick(0, ids, 0))
    whole = (centre == torch.tensor([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])).all(1)
    assert float(whole.float().mean()) == pytest.approx(0.7, abs=0.02)
    angle = torch.rad2deg(torch.atan2(sin, cos))
    assert float((angle == 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    assert float(angle.abs().max()) == pytest.approx(90, abs=0.01)
    turned = angle[angle != 0]
    assert float(turned.std()) == pytest.approx(42.9, abs=1.5)  # 45, cut at 90
    assert float(step[whole].min()) == pytest.approx(0.65)
    assert float(step[whole].max()) == pytest.approx(1.35)
    assert float((step[whole] > 1.3499).float().mean()) == pytest.approx(0.159, abs=0.015)  # beyond one deviation
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.02)
    calm = views(images, "person_mpii")._parameters(target, ids, space.pick(0, ids, 0))
    assert float(calm[1].max()) == pytest.approx(1.25)
    assert float(torch.rad2deg(torch.atan2(calm[3], calm[2])).abs().max()) == pytest.approx(60, abs=0.01)


def test_half_bodies_need_more_than_eight_labels() -> None:
    images = image_set(half_body=1.0, scale=0.0, rotation=0.0, rotation_p=0.0, flip=0.0)
    _, target, ids = images.train.batch(torch.arange(COUNT))
    space = views(images)
    target[0, 9:, :] = 0  # nine left: nose to right wrist's neighbour, all of the upper body
    target[1, 8:, :] = 0  # eight left
    target[2] = 0
    centre, step, *_ = space._parameters(target, ids, torch.ones_like(ids))
    middle = torch.tensor([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    assert (centre[0] == (target[0, :9, :2] * 64).round().mean(0) / 64).all()
    for row in (1, 2):
        assert torch.equal(centre[row], middle)
        assert float(step[row]) == 1
    upper = torch.tensor(COCO.upper)
    ups = [row for row in range(3, COUNT) if (centre[row] - target[row, upper, :2].mean(0)).abs().max() < 0.05]
    lower = torch.tensor([k for k in range(17) if k not in COCO.upper])
    downs = [row for row in range(3, COUNT) if (centre[row] - target[row, lower, :2].mean(0)).abs().max() < 0.05]
    assert sorted(ups + downs) == list(range(3, COUNT))
    assert len(ups) > 3
    assert len(downs) > 3


def test_fixed_views_pass_joints_and_sizes_on() -> None:
    images = image_set()
    pixels, target, ids = images.train.batch(torch.arange(COUNT))
    base = views(images)
    fixed = FixedViews(base, 4)
    slots = fixed.pick(0, ids, 1)
    for size in (None, (64, 64)):
        for got, want in zip(
            fixed.render(pixels, target, ids, slots, size),
            base.render(pixels, target, ids, fixed.base_views(ids, slots), size),
            strict=True,
        ):
            assert torch.equal(got, want)
        for got, want in zip(fixed.eval_view(pixels, target, size), base.eval_view(pixels, target, size), strict=True):
            assert torch.equal(got, want)
    assert torch.equal(
        FixedViews(views(images, "person_flip"), 2).base_views(ids, slots % 2).unique(), torch.tensor([0, 1])
    )


def test_definitions_tell_apart_what_differs() -> None:
    spaces = [views(image_set(**options), name, seed) for name, seed, options in (
        ("person", 0, {}), ("person", 1, {}), ("person_mpii", 0, {}), ("person_flip", 0, {}), ("none", 0, {}),
        ("person", 0, {"rotation": 30.0}), ("person", 0, {"flip": 0.0}),
    )]  # fmt: skip
    spaces += [views(image_set(stored=2.0)), views(image_set(size=(64, 64)))]
    assert len({space.definition for space in spaces}) == len(spaces)
    assert views(image_set(), "person_flip", 1).definition == spaces[3].definition  # finite: the view says it all


def test_person_views_refuse_what_they_cannot_do() -> None:
    images = image_set()
    with pytest.raises(TypeError, match="render"):
        views(images).apply(*(torch.zeros(1),) * 3)
    with pytest.raises(Exception, match="no view space of persons 'crop_flip'"):
        make_views("crop_flip", view_seed=0, image_size=SIZE, images=images)
    with pytest.raises(Exception, match="there is no view space 'person'"):
        make_views("person", view_seed=0, image_size=SIZE)
    assert images.people is not None
    changed = replace(images, people=replace(images.people, view_options={"scale": 0.1}))
    with pytest.raises(Exception, match=r"data\.views is none"):
        make_views("none", view_seed=0, image_size=SIZE, images=changed)
