from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classroomkd import _compat
from classroomkd.data import make_views
from classroomkd.data.views import randaugment
from classroomkd.data.views.randaugment import OPERATIONS, RandAugment
from classroomkd.errors import UserError

HEIGHT, WIDTH = 32, 28


def images(count: int, channels: int = 3) -> Tensor:
    """Noise, dim noise, and pictures of one and of two levels."""
    made = np.random.default_rng(0).integers(0, 256, (count, channels, HEIGHT, WIDTH), dtype=np.uint8)
    made[: count // 3] = made[: count // 3] // 4 + 60
    made[-1], made[-2, :, :5], made[-2, :, 5:], made[-3] = 9, 0, 200, 255
    return torch.from_numpy(made)


def space(**more: Any) -> RandAugment:
    return RandAugment("randaugment", **{"view_seed": 0, "image_size": (HEIGHT, WIDTH), **more})


def variants(name: str, direction: int, count: int) -> Tensor:
    return torch.full((count,), 2 * OPERATIONS.index(name) + direction)


def of_torchvision(name: str, pixels: Tensor, share: float, sign: int) -> Tensor:
    _compat.import_torchvision()
    from torchvision.transforms.v2 import functional as tv  # nearest and black outside are its defaults

    def warp(translate: list[int] | None = None, shear: list[float] | None = None) -> Any:
        return tv.affine(pixels, 0.0, translate or [0, 0], 1.0, shear or [0.0, 0.0], center=[0.0, 0.0])

    slant, far, factor = math.degrees(math.atan(sign * 0.3 * share)), 150 / 331 * share, 1 + sign * 0.9 * share
    table: dict[str, Callable[[], Any]] = {
        "identity": lambda: pixels,
        "shear_x": lambda: warp(shear=[slant, 0.0]),
        "shear_y": lambda: warp(shear=[0.0, slant]),
        "translate_x": lambda: warp([int(sign * far * WIDTH), 0]),
        "translate_y": lambda: warp([0, int(sign * far * HEIGHT)]),
        "rotate": lambda: tv.rotate(pixels, sign * 30 * share),
        "brightness": lambda: tv.adjust_brightness(pixels, factor),
        "posterize": lambda: tv.posterize(pixels, 8 - round(4 * share)),
        "solarize": lambda: tv.solarize(pixels, 255 - 255 * share),
        "contrast": lambda: tv.adjust_contrast(pixels, factor),
        "color": lambda: tv.adjust_saturation(pixels, factor),
        "sharpness": lambda: tv.adjust_sharpness(pixels, factor),
        "autocontrast": lambda: tv.autocontrast(pixels),
        "equalize": lambda: tv.equalize(pixels),
    }
    found: Tensor = table[name]()
    return found


@pytest.mark.skipif(not _compat.installed("torchvision"), reason="needs torchvision")
@pytest.mark.parametrize("magnitude", [0, 9, 22, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions(name: str, magnitude: int) -> None:
    ours, pixels = space(magnitude=magnitude), images(12)
    for direction, sign in enumerate((1, -1)):
        made = ours.operate(pixels, variants(name, direction, 12))
        away = (made.int() - of_torchvision(name, pixels, magnitude / 30, sign).int()).abs()
        assert int(away.max()) <= (1 if magnitude <= 9 else 2), (name, direction)


def test_each_operation_is_as_likely_in_either_direction() -> None:
    ids = torch.arange(14_000)
    ours = space(num_ops=3)
    crop, drawn = ours.operations(ids, ours.pick(0, ids, 0))
    assert drawn.shape == (3, 14_000)
    for turn in drawn:
        chi = float(((torch.bincount(turn, minlength=28) - 500) ** 2 / 500).sum())
        assert chi < 60  # 27 degrees of freedom: beyond p = 0.001
    assert (drawn[0] == drawn[1]).float().mean() < 0.06
    assert len(crop.unique()) == 162


def test_operations_follow_each_other_after_the_crop() -> None:
    ours, pixels, ids = space(num_ops=2), images(40), torch.arange(40)
    picked = ours.pick(1, ids, 0)
    crop, (first, second) = ours.operations(ids, picked)
    cropped = make_views("crop_flip", view_seed=0, image_size=(HEIGHT, WIDTH)).apply(pixels, ids, crop)
    wanted = ours.operate(ours.operate(cropped, first), second)
    assert torch.equal(ours.apply(pixels, ids, picked), wanted)
    assert not torch.equal(wanted, ours.operate(ours.operate(cropped, second), first))


def test_a_grey_image_is_three_equal_channels() -> None:
    ours, pixels, ids = space(num_ops=4), images(60, 1), torch.arange(60)
    picked = ours.pick(0, ids, 0)
    made = ours.apply(pixels, ids, picked)
    assert made.shape == pixels.shape
    assert torch.equal(made.expand(-1, 3, -1, -1), ours.apply(pixels.expand(-1, 3, -1, -1), ids, picked))
    assert torch.equal(ours.operate(pixels, variants("color", 0, 60)), pixels)
    assert not torch.equal(ours.operate(pixels, variants("solarize", 0, 60)), pixels)
    assert not torch.equal(ours.operate(pixels, variants("posterize", 0, 60)), pixels)


def test_what_devices_do_that_nobody_waits_for_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, pixels, ids = space(num_ops=3, magnitude=20), images(60), torch.arange(60)
    picked = ours.pick(0, ids, 0)
    wanted = ours.apply(pixels, ids, picked)
    monkeypatch.setattr(randaugment, "GROUPING", ())
    assert torch.equal(ours.apply(pixels, ids, picked), wanted)


def test_the_definition_has_every_number() -> None:
    made = [space(), space(num_ops=1), space(magnitude=10), space(view_seed=1), space(image_size=(32, 32))]
    assert len({one.definition for one in made}) == len(made)
    named = make_views("randaugment", view_seed=0, image_size=(HEIGHT, WIDTH))
    assert named.definition == space(num_ops=2, magnitude=9).definition


@pytest.mark.parametrize("more", [{"num_ops": 0}, {"magnitude": -1}, {"magnitude": 31}])
def test_numbers_that_do_not_fit_are_refused(more: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1 operation and a magnitude of 0 to 30"):
        space(**more)
