from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd.data import geometry, split
from classroomkd.errors import UserError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "size", "out"),
    [
        ((8, 8), None, (32, 32)),
        ((28, 28), None, (32, 32)),
        ((32, 32), None, (32, 32)),
        ((48, 48), None, (48, 48)),
        ((5, 9), None, (32, 32)),
        ((20, 40), None, (32, 40)),
        ((8, 8), 20, (20, 20)),
        ((48, 48), 32, (32, 32)),
        ((64, 100), 32, (32, 32)),
        ((20, 100), 32, (32, 32)),
        ((28, 28), 64, (64, 64)),
    ],
)
def test_shapes_of_the_rule(source: tuple[int, int], size: int | None, out: tuple[int, int]) -> None:
    made = geometry.fit(noise(3, *source), size, "pad")
    assert made.shape == (3, 3, *out)
    assert made.dtype == torch.uint8
    colour = noise(2, 3, *source)
    one = geometry.fit_image(Image.fromarray(colour[0].transpose(1, 2, 0)), size, "pad")
    assert one.shape == (3, *out)
    if min(source) <= (size or min(source)):  # without resizing both ways are the same pixels
        assert np.array_equal(one, geometry.fit(colour, size, "pad")[0].numpy())


def test_eight_pixels_become_32_by_repetition() -> None:
    images = noise(2, 8, 8)
    made = geometry.fit(images, None, "pad").numpy()
    for channel in range(3):
        assert np.array_equal(made[:, channel], images.repeat(4, 1).repeat(4, 2))


def test_28_pixels_are_padded_with_zeros() -> None:
    images = noise(2, 28, 28)
    made = geometry.fit(images, None, "pad")
    assert np.array_equal(made[:, 1, 2:30, 2:30].numpy(), images)
    assert int((made > 0).sum()) == 3 * images.size


def test_odd_rest_goes_behind() -> None:
    made = geometry.fit(np.full((1, 5, 5), 7, np.uint8), 12, "pad")[0, 0]  # twice 5, then one before and one after
    assert torch.equal(made.nonzero().min(0).values, torch.tensor([1, 1]))
    made = geometry.fit(np.full((1, 7, 7), 7, np.uint8), 10, "pad")[0, 0]
    assert torch.equal(made.nonzero().min(0).values, torch.tensor([1, 1]))
    assert torch.equal(made.nonzero().max(0).values, torch.tensor([7, 7]))


def test_long_images_are_padded_across_and_cut_along() -> None:
    image = noise(1, 3, 20, 100)
    made = geometry.fit(image, 32, "pad")
    assert np.array_equal(made[0, :, 6:26].numpy(), image[0, :, :, 34:66])
    assert int(made[0, :, :6].max()) == int(made[0, :, 26:].max()) == 0


def test_shrinking_is_antialiased_and_central() -> None:
    stripes = np.zeros((1, 3, 64, 96), np.uint8)
    stripes[..., ::2] = 200
    made = geometry.fit(stripes, 16, "pad")[0].float()
    assert (made - 100).abs().max() < 12  # without antialiasing stripes of 0 or 200 remain
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8), (1, 64, 96))
    row = geometry.fit(ramp, 32, "pad")[0, 0, 0].float()  # the middle 64 of 96 columns, two to one
    assert (row - (torch.arange(32) * 2 + 16.5)).abs()[1:-1].max() <= 0.51


def test_pillow_and_torch_shrink_alike() -> None:
    image = np.kron(noise(3, 8, 8), np.ones((8, 8), np.uint8))
    ours = geometry.fit(image[None], 24, "pad")[0].int()
    pillow = torch.from_numpy(geometry.fit_image(Image.fromarray(image.transpose(1, 2, 0)), 24, "pad")).int()
    assert (ours - pillow).abs().max() <= 2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 4, 8, 8), np.uint8), "only 1 or 3 channels"),
        (np.zeros((2, 2, 8, 8), np.uint8), r"\(2, 8, 8\)"),
        (np.zeros((2, 3, 8, 8), np.float32), "pixels are float32; give uint8"),
        (np.zeros((2, 3, 0, 8), np.uint8), "a side without pixels"),
        (np.zeros((8, 8), np.uint8), "only 1 or 3 channels"),
    ],
)
def test_what_cannot_fit_is_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        geometry.fit(images, None, "pad", where="here")


def test_no_images() -> None:
    assert geometry.fit(np.zeros((0, 64, 64), np.uint8), 32, "pad").shape == (0, 3, 32, 32)


# --- split ---------------------------------------------------------------------------------------------------------


def labels(*counts: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def test_fraction_counts() -> None:
    per_class = np.array([0, 1, 2, 3, 10, 15, 100])
    assert split.counts_for_fraction(per_class, 0.2).tolist() == [0, 0, 1, 1, 2, 3, 20]
    assert split.counts_for_fraction(per_class, 0.0).tolist() == [0] * 7
    assert split.counts_for_fraction(per_class, 0.999).tolist() == [0, 0, 1, 2, 9, 14, 99]


def test_total_counts() -> None:
    assert split.counts_for_total(np.array([50, 50]), 11).sum() == 11
    assert split.counts_for_total(np.array([90, 10]), 10).tolist() == [9, 1]
    assert split.counts_for_total(np.array([900, 3, 0]), 10).tolist() == [9, 1, 0]  # no class is lost
    assert split.counts_for_total(np.array([5, 5]), 50).tolist() == [5, 5]


def test_subsets_are_stratified_nested_and_sorted() -> None:
    target = labels(40, 40, 20)
    ids = np.arange(1000, 1100)
    small = split.stratified(target, ids, 20, seed=0, purpose="limit")
    large = split.stratified(target, ids, 50, seed=0, purpose="limit")
    assert np.bincount(target[small]).tolist() == [8, 8, 4]
    assert set(small) <= set(large)
    assert (np.diff(large) > 0).all()
    assert not np.array_equal(small, split.stratified(target, ids, 20, seed=1, purpose="limit"))
    assert not np.array_equal(small, split.stratified(target, ids, 20, seed=0, purpose="val"))


def test_the_order_is_known_by_heart() -> None:
    # Splits must never move: a mentor trained on one machine would have seen another machine's test images.
    target = np.arange(40) % 2
    assert split.stratified(target, np.arange(40), 8, seed=0, purpose="test").tolist() == [0, 6, 12, 29, 31, 33, 35, 36]


def test_a_skipped_file_does_not_reshuffle_the_rest() -> None:
    target, ids = labels(30, 30), np.arange(60)
    before = split.stratified(target, ids, 20, seed=0, purpose="test")
    lost = int(before[3])
    keep = np.delete(ids, lost)
    after = keep[split.stratified(target[keep], keep, 20, seed=0, purpose="test")]
    assert len(set(before) - set(after)) <= 1
