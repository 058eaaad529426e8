"""SimCC's arithmetic by hand: bins, sigmas, labels, mirrors, scores."""

from __future__ import annotations

import pytest
import torch

from classroomkd.functional import simcc


@pytest.mark.parametrize(("side", "sigma"), [(192, 4.9), (256, 5.66), (288, 6.0), (384, 6.93)])
def test_sigma_follows_the_published_ones(side: int, sigma: float) -> None:
    assert simcc.bin_sigma(side) == pytest.approx(sigma, abs=0.005)
    assert simcc.bin_sigma(side, 3.0) == pytest.approx(simcc.bin_sigma(side) * 1.5)


def test_label_of_a_place() -> None:
    label = simcc.gaussian_bins(torch.tensor([10.25]), 64, 2.0, 3.0)[0]
    assert label[20] == label[21] == label.max()  # 10.25 px are 20.5 bins
    assert label[20].item() == pytest.approx(torch.tensor(-(0.5**2) / 18).exp().item())
    assert simcc.bins_of(192) == 384
    assert simcc.nearest_bin(torch.tensor([-3.0, 10.1, 99.0]), 64).tolist() == [0, 20, 63]


@pytest.mark.parametrize("split", [1.0, 2.0, 3.0])
def test_round_trip(split: float) -> None:
    torch.manual_seed(0)
    place = torch.rand(4000) * 191
    logits = simcc.gaussian_bins(place, simcc.bins_of(192, split), split, simcc.bin_sigma(192, split))
    off = simcc.best_bin(logits, split) - place
    assert off.abs().max() <= 0.5 / split + 1e-4
    assert off.mean().abs() < 0.02


def test_label_divergence() -> None:
    label = simcc.gaussian_bins(torch.tensor([3.0, 9.3]), 32, 2.0, 2.0)
    assert simcc.label_divergence(label + 7.0, label) == pytest.approx([0, 0], abs=1e-5)  # level means nothing
    p = torch.softmax(10 * label, -1)
    uniform = (p * (p * 32).log()).sum(-1)
    assert simcc.label_divergence(torch.zeros(2, 32), label).tolist() == pytest.approx(uniform.tolist(), rel=1e-5)
    assert simcc.label_divergence(torch.zeros(32, dtype=torch.bfloat16), label).dtype == torch.float32
    assert simcc.label_divergence(torch.tensor([float("nan")] * 32), label).isnan().all()


@pytest.mark.parametrize("split", [1.0, 2.0, 3.0])
def test_mirror_is_exact_and_undoes_itself(split: float) -> None:
    place = torch.tensor([0.0, 7.3, 31.5, 63.0])
    count, sigma = simcc.bins_of(64, split), simcc.bin_sigma(64, split)
    label = simcc.gaussian_bins(place, count, split, sigma)
    mirrored = simcc.mirrored_bins(label, 64, split)
    inner = round(63 * split) + 1
    expected = simcc.gaussian_bins(63 - place, count, split, sigma)
    assert torch.allclose(mirrored[:, :inner], expected[:, :inner], atol=1e-5)
    assert torch.equal(simcc.mirrored_bins(mirrored, 64, split)[:, :inner], label[:, :inner])


def test_mass_and_mean() -> None:
    two = torch.full((40,), -20.0)
    two[5], two[30] = 0.0, 0.0
    two[6] = -0.01
    assert simcc.peak_mass(two, 2.0).item() == pytest.approx((1 + 0.9048) / 2.9048, abs=1e-3)
    assert simcc.peak_mass(two, 100.0).item() == pytest.approx(1)
    left, right = torch.full((40,), -20.0), torch.full((40,), -20.0)
    left[5], right[30] = 0.0, 0.0
    p = torch.softmax(10 * simcc.mean_bins([left, right]), -1)
    assert p[[5, 30]].tolist() == pytest.approx([0.5, 0.5])
