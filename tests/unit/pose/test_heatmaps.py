"""Heatmaps' arithmetic: targets, decoders with the errors they have to have, profiles, reading at other places."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from classroomkd.functional import heatmaps

CELLS = (64, 48)


def places(count: int = 1500, margin: float = 6.0) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(count, 2) * (torch.tensor([47.0, 63.0]) - 2 * margin) + margin


def error(found: Tensor, truth: Tensor) -> Tensor:
    return (found - truth).norm(dim=-1)


def test_gaussian_map() -> None:
    lone = heatmaps.gaussian_map(torch.tensor([10.25, 20.5]), CELLS, 2.0)
    assert lone.shape == CELLS
    assert lone[20, 10].item() == pytest.approx(torch.tensor(-(0.25**2 + 0.5**2) / 8).exp().item())
    assert heatmaps.gaussian_map(torch.tensor([10.25, 20.5]), CELLS, 2.0, rounded=True)[21, 10] == 1
    assert (heatmaps.cell_sigma(64), heatmaps.cell_sigma(96), heatmaps.cell_sigma(16)) == (2, 3, 1)


def step_of_none(maps: Tensor, cell: Tensor) -> Tensor:
    return cell.float()


# Errors in cells; the spec's table in pixels of 4 to a cell: 1.52, 0.76, 0.00.
@pytest.mark.parametrize(
    ("refine", "rounded", "mean"),
    [(step_of_none, True, 0.383), (heatmaps.quarter, True, 0.383), (step_of_none, False, 0.383),
     (heatmaps.quarter, False, 0.191), (heatmaps.dark, False, 0.0)],
)  # fmt: skip
def test_decoders_on_clean_maps(refine: Callable[[Tensor, Tensor], Tensor], rounded: bool, mean: float) -> None:
    truth = places()
    maps = heatmaps.gaussian_map(truth, CELLS, 2.0, rounded)
    cell, height = heatmaps.best_cell(maps)
    assert error(refine(maps, cell), truth).mean().item() == pytest.approx(mean, abs=0.01)
    assert height.min() > 0.93


def test_dark_in_the_border_cells() -> None:
    """Up to half a cell off in the outermost, where released code leaves a cell as it is, and a third in the third."""
    inside = torch.linspace(10.0, 30.0, 41)
    for count, axis in ((48, 0), (64, 1)):
        for at in (*(0.3 * i for i in range(9)), *(count - 1 - 0.3 * i for i in range(9))):
            truth = torch.stack([torch.full_like(inside, at), inside][:: 1 - 2 * axis], -1)
            maps = heatmaps.gaussian_map(truth, CELLS, 2.0)
            cell, _ = heatmaps.best_cell(maps)
            assert error(heatmaps.dark(maps, cell), truth).max() < 0.025, (axis, at)  # a tenth of a pixel
    corners = torch.tensor([[0.2, 0.4], [46.9, 62.7], [46.6, 0.1], [1.4, 62.2]])
    maps = heatmaps.gaussian_map(corners, CELLS, 2.0)
    cell, _ = heatmaps.best_cell(maps)
    assert error(heatmaps.dark(maps, cell), corners).max() < 0.025


def test_quarter_moves_where_released_code_does() -> None:
    """In cells 2 to n - 2 of an axis; the last but one was left out."""
    for at, moves in ((1.2, False), (2.2, True), (45.3, True), (46.2, True), (46.8, False)):
        truth = torch.tensor([[at, 30.2]])
        maps = heatmaps.gaussian_map(truth, CELLS, 2.0)
        cell, _ = heatmaps.best_cell(maps)
        assert bool((heatmaps.quarter(maps, cell) != cell).any()) == moves, at


def test_dark_on_what_is_no_peak() -> None:
    flat = torch.zeros(2, *CELLS)
    cell, _ = heatmaps.best_cell(flat)
    assert heatmaps.dark(flat, cell).isfinite().all()
    torch.manual_seed(0)
    noise = torch.randn(50, *CELLS)
    cell, _ = heatmaps.best_cell(noise)
    assert (heatmaps.dark(noise, cell) - cell).abs().max() <= 1


def test_dark_equals_blurring_the_whole_map() -> None:
    torch.manual_seed(0)
    truth = places(40, 9.0)
    maps = (heatmaps.gaussian_map(truth, CELLS, 2.0) + 0.05 * torch.randn(40, *CELLS)).double()
    cell, _ = heatmaps.best_cell(maps)
    at = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-at.square() / 8)
    kernel = line[:, None] * line / line.sum() ** 2
    log = torch.nn.functional.conv2d(maps[:, None], kernel[None, None], padding=5)[:, 0].clamp_min(1e-10).log()
    for i, (x, y) in enumerate(cell.tolist()):
        m = log[i]
        d = torch.stack([m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]]) / 2
        xx = (m[y, x + 2] - 2 * m[y, x] + m[y, x - 2]) / 4
        yy = (m[y + 2, x] - 2 * m[y, x] + m[y - 2, x]) / 4
        xy = (m[y + 1, x + 1] - m[y - 1, x + 1] - m[y + 1, x - 1] + m[y - 1, x - 1]) / 4
        step = -torch.linalg.solve(torch.stack([xx, xy, xy, yy]).view(2, 2), d)
        if step.abs().max() <= 1 and xx < 0 and xx * yy > xy**2:
            assert heatmaps.dark(maps[i], cell[i]).tolist() == pytest.approx((cell[i] + step).tolist(), abs=1e-6)


def test_profiles_peak_where_the_map_does() -> None:
    torch.manual_seed(0)
    maps = torch.randn(20, *CELLS)
    cell, height = heatmaps.best_cell(maps)
    x, y = heatmaps.profiles(maps)
    assert torch.equal(torch.stack([x.argmax(-1), y.argmax(-1)], -1), cell)
    assert torch.equal(x.amax(-1), height)
    assert torch.equal(heatmaps.level(maps), maps.flatten(1).sort(-1).values[:, 32 * 48])


def test_interpolation_reproduces_quadratics_to_the_border() -> None:
    at = torch.arange(12, dtype=torch.float64)
    outer = torch.tensor([-0.75, 11.5], dtype=torch.float64)
    assert torch.allclose(
        (0.3 * at.square() - 2 * at + 1) @ heatmaps.interpolating(outer, 12, margin=1.0),
        0.3 * outer.square() - 2 * outer + 1,
    )
    wanted = torch.tensor([0.0, 0.3, 1.0, 5.71, 10.2, 11.0], dtype=torch.float64)
    matrix = heatmaps.interpolating(wanted, 12)
    curve = 0.3 * at.square() - 2 * at + 1
    assert torch.allclose(curve @ matrix, 0.3 * wanted.square() - 2 * wanted + 1)
    assert torch.allclose(matrix.sum(0), torch.ones(6, dtype=torch.float64))
    assert torch.equal(heatmaps.interpolating(at, 12), torch.eye(12, dtype=torch.float64))
    outside = heatmaps.interpolating(torch.tensor([-1.0, 12.0]), 12)
    assert torch.equal(outside, torch.eye(12)[[0, 11]].T)


def test_blurring_widens_and_keeps_the_peak() -> None:
    at = torch.arange(60, dtype=torch.float64)
    narrow = torch.exp((at - 30).square() / -8)
    wide = narrow @ heatmaps.blurring(at, 60, 12**0.5, 2.0)
    assert torch.allclose(wide, torch.exp((at - 30).square() / -32), atol=1e-3)
