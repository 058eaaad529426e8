"""``data.resize``: how pictures are brought to one size, the same whatever gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from classroomkd.data import decode, geometry
from classroomkd.data.spec import RESIZE
from classroomkd.errors import UserError

SIDES = [(300, 100), (100, 300), (97, 64), (64, 97), (20, 20), (33, 50), (500, 3), (64, 64), (31, 640), (5, 4)]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8))


def by_hand(image: Image.Image, size: int) -> Image.Image:
    """torchvision's Resize and CenterCrop, as its pages say it."""
    width, height = image.size
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    image = image.resize((size, long) if width == short else (long, size), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [32, 64, 37])
@pytest.mark.parametrize("side", SIDES)
def test_three_rules_in_lines_of_pillow(side: tuple[int, int], size: int, mode: str) -> None:
    image = picture(*side, mode)
    assert np.array_equal(geometry.fit_image(image, size, "crop"), pixels(by_hand(image, size)))
    stretched = image.resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(geometry.fit_image(image, size, "stretch"), pixels(stretched))
    if max(side) / min(side) <= 2 * size:  # Pillow refuses what has no width left
        boxed = ImageOps.pad(image, (size, size), Image.Resampling.BILINEAR)
        assert np.array_equal(geometry.fit_image(image, size, "letterbox"), pixels(boxed))


@pytest.mark.parametrize("side", SIDES)
def test_crop_is_torchvisions_to_the_bit(side: tuple[int, int]) -> None:
    try:
        from torchvision import transforms
    except (ImportError, RuntimeError):  # absent, or made for another torch
        pytest.skip("torchvision is not there")
    image = picture(*side)
    expected = transforms.Compose([transforms.Resize(48), transforms.CenterCrop(48)])(image)
    assert np.array_equal(geometry.fit_image(image, 48, "crop"), pixels(expected))


def test_small_pictures_are_enlarged_and_only_letterbox_and_pad_leave_black() -> None:
    white = Image.new("L", (50, 20), 255)
    black = {rule: int((geometry.fit_image(white, 64, rule) == 0).sum()) // 3 for rule in RESIZE}
    assert black == {"crop": 0, "letterbox": 64 * (64 - 26), "pad": 64 * 64 - 50 * 20, "stretch": 0}


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_without_a_size_pictures_keep_theirs_but_small_ones(resize: str) -> None:
    for width, height in ((48, 32), (32, 40)):
        image = picture(width, height)
        assert np.array_equal(geometry.fit_image(image, None, resize), pixels(image))
        assert geometry.fitted_shape(height, width, None, resize) == (height, width)
    for side in ((28, 28), (100, 20), (8, 8)):
        image = picture(*side)
        assert np.array_equal(geometry.fit_image(image, None, resize), geometry.fit_image(image, 32, resize))
        assert geometry.fitted_shape(*image.size[::-1], None, resize) == (32, 32)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_file_an_array_and_a_tensor_become_the_same_pixels(tmp_path: Path, ending: str, resize: str) -> None:
    image = picture(40, 60) if resize == "pad" else picture(100, 60)
    image.save(tmp_path / f"a.{ending}")
    file = decode.decode(tmp_path / f"a.{ending}", 64, resize)
    array = geometry.fit(pixels(image)[None], 64, resize)
    tensor = geometry.fit(torch.from_numpy(pixels(image).copy())[None], 64, resize)
    assert np.array_equal(file, array[0].numpy())
    assert torch.equal(array, tensor)


def test_a_large_jpeg_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    picture(900, 700).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        expected = pixels(by_hand(image.convert("RGB"), 64))
    assert np.array_equal(decode.decode(tmp_path / "a.jpg", 64, "crop"), expected)


def test_a_thread_of_pixels_is_refused_and_not_blown_up() -> None:
    with pytest.raises(UserError, match=r"here: it is 200000x1, too long and thin for resize: crop; choose letterbox"):
        geometry.fit(np.zeros((1, 1, 200_000), np.uint8), 224, "crop", where="here")
    assert geometry.fit(np.zeros((1, 1, 200_000), np.uint8), 224, "letterbox").shape == (1, 3, 224, 224)
