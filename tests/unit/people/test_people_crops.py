"""Crops: where an input is in its picture, the warp that brings it there, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from people_dots import COUNT, SIZE, check_dots, image_set, views

from classroomkd.data.keypoints.crops import Canvas, crop, region, render
from classroomkd.tasks.pose import translation


@pytest.mark.parametrize(("joint", "scale"), [(0, 1.0), (9, 1.0), (9, 1.5), (16, 2.0)])
def test_a_crop_puts_the_joint_where_the_target_says(joint: int, scale: float) -> None:
    images = image_set(joint, stored=scale)
    pixels, target = views(images).eval_view(*images.train.batch(torch.arange(COUNT))[:2])
    assert pixels.shape == (COUNT, 3, *SIZE)
    assert check_dots(pixels, target[:, joint], SIZE, 0.04) >= 20


def test_the_untouched_input_is_one_bilinear_warp_of_the_picture() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)
    canvas, origin, step = Canvas((64, 48)), np.array([10.3, -4.6]), 1.37
    made = torch.from_numpy(render(picture, origin, step, canvas))
    x0, y0 = canvas.offset
    got = made[:, y0 : y0 + 64, x0 : x0 + 48].permute(1, 2, 0).numpy()
    padded = np.zeros((82, 92, 3))
    padded[1:-1, 1:-1] = picture
    for row in range(64):
        for column in range(48):
            x, y = origin[0] + step * column + 1, origin[1] + step * row + 1
            i, j = int(np.floor(y)), int(np.floor(x))
            want = np.zeros(3)
            if 0 <= i < 81 and 0 <= j < 91:
                fy, fx = y - i, x - j
                square = padded[i : i + 2, j : j + 2]
                want = (1 - fy) * ((1 - fx) * square[0, 0] + fx * square[0, 1])
                want += fy * ((1 - fx) * square[1, 0] + fx * square[1, 1])
            assert np.abs(got[row, column] - want).max() <= 0.51, (row, column)


def test_large_steps_skip_no_pixel() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[:, ::2] = 255  # stripes of one pixel
    made = render(picture, np.array([20.0, 20.0]), 4.0, Canvas((32, 32)))
    inner = made[:, 12:36, 12:36].astype(int)
    assert np.abs(inner - 128).max() <= 1


def test_regions_are_widened_to_the_inputs_aspect_and_padded() -> None:
    origin, step = crop(np.array([[100.0, 50.0, 20.0, 80.0], [0.0, 0.0, 80.0, 20.0]]), (256, 192))
    assert step == pytest.approx([1.25 * 80 / 255, 1.25 * 80 / 191])
    assert origin[0] + step[0] * np.array([191 / 2, 255 / 2]) == pytest.approx([100, 50])


@pytest.mark.parametrize(("size", "other"), [((96, 72), (64, 64)), ((64, 64), (96, 72)), ((256, 192), (384, 288))])
def test_another_input_size_is_the_smallest_region_around_the_data_s(
    size: tuple[int, int], other: tuple[int, int]
) -> None:
    step, x, y = region(size, other)
    assert x <= 1e-9
    assert y <= 1e-9
    assert min(-x, -y) < 1e-9
    assert x + step * (other[1] - 1) / 2 == pytest.approx((size[1] - 1) / 2)
    # What translation of answers says is the same the other way round.
    a, b_x, b_y = translation.region(size, other)
    assert (1 / step, -x / step, -y / step) == pytest.approx((a, b_x, b_y))


def test_to_image_inverts_to_input() -> None:
    images = image_set()
    assert images.people is not None
    ids = np.array([5, 0, 23, 5])
    rng = np.random.default_rng(0)
    place = rng.uniform(-20, 200, (4, 17, 3))
    there = images.people.to_image(ids, place)
    assert there[..., 2] == pytest.approx(place[..., 2])
    assert images.people.to_input(torch.from_numpy(ids), torch.from_numpy(there)) == pytest.approx(place)
    truth = images.people.of(ids).joints
    assert images.people.to_image(ids, images.train.target[torch.from_numpy(ids)])[..., :2] == pytest.approx(
        truth[..., :2], abs=1e-3
    )
    with pytest.raises(AssertionError, match="no samples"):
        images.people.rows([99])
