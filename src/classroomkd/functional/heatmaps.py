"""Heatmaps: a joint's place as a map with a peak. Pure functions of maps ``(…, h, w)``.

UDP coordinates (Huang et al., CVPR 2020, arXiv 1911.07524): cell j of ``w`` is at ``j · (W - 1) / (w - 1)`` input
pixels. Places are in cells here unless said otherwise.

Sources: sigma 2 cells at 64 rows and 3 at 96 (SimpleBaseline, HRNet), so rows / 32, and at least one cell for small
maps; the quarter step of SimpleBaseline and HRNet; DARK (Zhang et al., CVPR 2020, arXiv 1910.06278): blur by 11 x 11
(OpenCV's sigma for 11 is 2.0), logarithm, one Newton step from finite differences over two cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from classroomkd.functional.constants import constant
from classroomkd.functional.divergence import wide

__all__ = [
    "best_cell",
    "blurring",
    "cell_sigma",
    "columns_at",
    "dark",
    "expected",
    "gaussian_map",
    "interpolating",
    "level",
    "product_map",
    "profiles",
    "quarter",
]

_REACH, _BLUR = 5, 2.0  # DARK's 11 x 11 kernel
_NEAR = 3  # cells from the border on that its zeros make a difference of over a tenth of a cell
_FAINT = 1e-10


def cell_sigma(rows: int) -> float:
    """The Gaussian's standard deviation in cells for a map of so many rows."""
    return max(1.0, rows / 32)


def gaussian_map(place_xy: Tensor, cells: tuple[int, int], sigma: float, rounded: bool = False) -> Tensor:
    """A Gaussian with peak 1 at ``place_xy`` ``(…, 2)`` cells, ``(…, h, w)``; float32 at least.

    Args:
        place_xy: x and y.
        cells: (h, w).
        sigma: cells.
        rounded: centre it on the nearest cell, as HRNet's released targets are.
    """
    place_xy = wide(place_xy)
    if rounded:
        place_xy = (place_xy + 0.5).floor()
    x, y = (
        torch.exp((torch.arange(n, dtype=c.dtype, device=c.device) - c.unsqueeze(-1)).square() / (-2 * sigma**2))
        for n, c in zip(cells[::-1], place_xy.unbind(-1), strict=True)
    )
    return product_map(x, y)


def product_map(x: Tensor, y: Tensor) -> Tensor:
    """The outer product of ``(…, w)`` and ``(…, h)``: ``(…, h, w)``."""
    return y.unsqueeze(-1) * x.unsqueeze(-2)


def best_cell(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cell, x and y ``(…, 2)`` int64, and its value ``(…)``."""
    value, at = maps.flatten(-2).max(-1)
    return torch.stack([at % maps.shape[-1], at.div(maps.shape[-1], rounding_mode="floor")], -1), value


def _window(maps: Tensor, cell_xy: Tensor, reach: int) -> Tensor:
    """The values around a cell, ``(…, 2·reach + 1, 2·reach + 1)``, zero outside the map."""
    h, w = maps.shape[-2:]
    offset = torch.arange(-reach, reach + 1, device=maps.device)
    x, y = (cell_xy[..., i : i + 1] + offset for i in (0, 1))
    inside = ((y >= 0) & (y < h)).unsqueeze(-1) & ((x >= 0) & (x < w)).unsqueeze(-2)
    index = y.clamp(0, h - 1).unsqueeze(-1) * w + x.clamp(0, w - 1).unsqueeze(-2)
    values = maps.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)
    return torch.where(inside, values, 0.0)


def _within(cell_xy: Tensor, cells: tuple[int, int], before: int, after: int) -> Tensor:
    """Cells with at least so many others before and after them on both axes, ``(…, 1)`` bool."""
    x, y = cell_xy.unbind(-1)
    return ((x >= before) & (x < cells[1] - after) & (y >= before) & (y < cells[0] - after)).unsqueeze(-1)


def quarter(maps: Tensor, cell_xy: Tensor) -> Tensor:
    """The place, a quarter of a cell from ``cell_xy`` towards the higher neighbour on each axis: ``(…, 2)`` cells.

    As in released code not in the first two cells and the last of either axis, which stay.
    """
    near = _window(wide(maps), cell_xy, 1)
    step = torch.stack([near[..., 1, 2] - near[..., 1, 0], near[..., 2, 1] - near[..., 0, 1]], -1).sign() / 4
    inner = _within(cell_xy, (maps.shape[-2], maps.shape[-1]), 2, 1)
    return cell_xy.to(step.dtype) + step.where(inner, 0.0)


def dark(maps: Tensor, cell_xy: Tensor) -> Tensor:
    """The place by DARK, ``(…, 2)`` cells: exact for a clean Gaussian.

    Only the neighbourhood of ``cell_xy`` is blurred, with zeros beyond the border. These move what is found near it by
    up to a third of a cell, and released code leaves the two outermost cells as they are; here, along an axis on which
    the border is near, the step is that of a parabola through the logarithms of three cells that are blurred across the
    axis alone, which moves nothing. A place that is no peak, or whose step would be over a cell, stays.
    """
    maps = wide(maps)
    reach = _REACH + 2
    window = _window(maps, cell_xy, reach)
    with torch.autocast(maps.device.type, enabled=False):
        blur = constant(_blur_rows(), maps.dtype, maps.device).view(5, 2 * reach + 1)
        rows, columns = blur @ window, window @ blur.T
        near = (rows @ blur.T).clamp_min(_FAINT).log()
    centre = near[..., 2, 2]
    dx, dy = (near[..., 2, 3] - near[..., 2, 1]) / 2, (near[..., 3, 2] - near[..., 1, 2]) / 2
    dxx = (near[..., 2, 4] - 2 * centre + near[..., 2, 0]) / 4
    dyy = (near[..., 4, 2] - 2 * centre + near[..., 0, 2]) / 4
    dxy = (near[..., 3, 3] - near[..., 1, 3] - near[..., 3, 1] + near[..., 1, 1]) / 4
    volume = dxx * dyy - dxy.square()
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / volume.unsqueeze(-1)
    peak = ((volume > 0) & (dxx < 0)).unsqueeze(-1) & (step.abs() <= 1).all(-1, keepdim=True)
    across = torch.stack([-dx / dxx, -dy / dyy], -1)  # of each axis by itself: the other one's border is near
    across = across.where((torch.stack([dxx, dyy], -1) < 0) & (across.abs() <= 1), 0.0)
    inner = _within(cell_xy, (maps.shape[-2], maps.shape[-1]), _NEAR, _NEAR)
    step, offsets = torch.where(inner, step.where(peak, 0.0), across), []
    for line, at, count, own in zip(
        (rows[..., 2, :], columns[..., 2]), cell_xy.unbind(-1), maps.shape[:-3:-1], step.unbind(-1), strict=True
    ):
        beside = (at < _NEAR) | (at >= count - _NEAR)
        offsets.append(torch.where(beside, _parabola(line, at, count), own))
    return cell_xy.to(maps.dtype) + torch.stack(offsets, -1)


def _parabola(line: Tensor, at: Tensor, count: int) -> Tensor:
    """The step ``(…)`` from the middle of a line ``(…, n)`` to the top of a parabola through three logarithms.

    Through the middle's, cell ``at`` of ``count``, and its neighbours'; the outermost cells have one on the inside only
    and take the next one too.
    """
    shift = (at == 0).long() - (at == count - 1).long()
    index = line.shape[-1] // 2 + shift.unsqueeze(-1) + torch.arange(-1, 2, device=line.device)
    before, here, after = line.gather(-1, index).clamp_min(_FAINT).log().unbind(-1)
    bend = 2 * here - before - after
    step = shift + (after - before) / (2 * bend).clamp_min(_FAINT)
    return step.where((bend > 0) & (step.abs() <= 1), 0.0)


def _blur_rows() -> tuple[float, ...]:
    """Five rows that blur a window of 15 at its five middle places, row by row."""
    weights = [math.exp(-(d**2) / (2 * _BLUR**2)) for d in range(-_REACH, _REACH + 1)]
    total, width = sum(weights), 2 * (_REACH + 2) + 1
    return tuple(weights[j - i] / total if 0 <= j - i < len(weights) else 0.0 for i in range(5) for j in range(width))


def level(maps: Tensor) -> Tensor:
    """A map's median, ``(…)``: its ground, where only differences within the map mean anything."""
    values = maps.flatten(-2).sort(-1).values  # a median with its place is not deterministic on every device
    return values[..., values.shape[-1] // 2]


def profiles(maps: Tensor) -> tuple[Tensor, Tensor]:
    """A map's marginals by maximum, ``(…, w)`` over x and ``(…, h)`` over y.

    The maximum and not the sum: the sum adds up what a network leaves all over a map, and both maxima have their
    highest value at the same cell of the map.
    """
    return maps.amax(-2), maps.amax(-1)


def columns_at(maps: Tensor, places: Tensor) -> Tensor:
    """Maps ``(…, h, w)`` read at n places along x, up to a cell beyond the border: ``(…, h, n)``.

    In the logarithm, so that a Gaussian stays one; below a thousandth of the peak there is nothing.
    """
    top = maps.amax((-2, -1), keepdim=True).clamp_min(_FAINT)
    logs = (maps / top).clamp_min(1e-3).log() @ interpolating(places, maps.shape[-1], margin=1.0)
    # A Gaussian of one cell's width may be higher between four cells than on them, by a quarter of a nat.
    return top * logs.clamp_max(0.25).exp()


def interpolating(places: Tensor, count: int, margin: float = 0.0) -> Tensor:
    """The matrix ``(count, n)`` that reads ``count`` equally spaced values at n places between 0 and ``count - 1``.

    Keys' cubic convolution (a = -1/2) with quadratic extrapolation by one cell, so that a quadratic, and with it the
    logarithm of a Gaussian, is reproduced exactly. Places further outside than ``margin`` are moved there. Three values
    or more.
    """
    assert count >= 3, f"a row of {count} values cannot be interpolated"
    places = places.clamp(-margin, count - 1 + margin)
    first = places.floor().clamp(0, count - 2)
    t = places - first
    weights = torch.stack(
        [
            ((2 - t) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((4 - 3 * t) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ],
        -1,
    )
    index = first.long().unsqueeze(-1) + torch.arange(4, device=places.device)  # in values padded by one on each side
    spread = torch.zeros(len(places), count + 2, dtype=places.dtype, device=places.device).scatter(1, index, weights)
    matrix = spread[:, 1:-1].clone()
    beyond = torch.tensor([3.0, -3.0, 1.0], dtype=places.dtype, device=places.device)
    matrix[:, :3] += spread[:, :1] * beyond
    matrix[:, -3:] += spread[:, -1:] * beyond.flip(0)
    return matrix.T.contiguous()


def blurring(places: Tensor, count: int, sigma: float, gain: float) -> Tensor:
    """The matrix ``(count, n)`` that reads values at n places through a Gaussian of ``sigma`` cells, times ``gain``.

    Beyond the border there is nothing.
    """
    return gain / (sigma * math.sqrt(2 * math.pi)) * expected(places, count, sigma)


def expected(places: Tensor, count: int, sigma: float) -> Tensor:
    """``(count, n)``: at n places, a Gaussian with peak 1 around each of ``count`` equally spaced ones.

    Probabilities over the ``count`` times this give the mean target, which is what regression tends to.
    """
    at = torch.arange(count, dtype=places.dtype, device=places.device)
    return torch.exp((at.unsqueeze(1) - places).square() / (-2 * sigma**2))
