"""The coding by heatmaps: a map a joint. Conventions and their sources: :mod:`classroomkd.functional.heatmaps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from classroomkd.functional import heatmaps, kl_divergence, simcc, wide
from classroomkd.functional.bound import STEEPEST
from classroomkd.functional.constants import constant
from classroomkd.tasks.pose.base import Coding, Size

__all__ = ["Heatmap"]


@dataclass(frozen=True)
class Heatmap(Coding):
    """A map a joint: an answer is raw maps ``(…, B, K, h, w)``.

    Attributes:
        stride: input pixels a cell.
        sigma: of the target, cells; None = :func:`heatmaps.cell_sigma` of the rows.
        rounded: targets centred on cells, as HRNet's released ones; they cost 1.5 px in a 256 x 192 crop.
        loss: ``mse`` on the maps, or ``kl`` of softmax(scale · map).
        scale: of that softmax, and of :meth:`distributions` whatever the loss.
        decoder: ``dark``, ``quarter`` or ``argmax``.
        aligned: ``udp``: the outermost cells are at the outermost pixels; ``stride``: cell j is at pixel stride · j, as
            in the published HRNet and SimpleBaseline weights (read as ``udp`` they would be 1.5 px off on average).
    """

    stride: float = 4
    sigma: float | None = None
    rounded: bool = False
    loss: Literal["mse", "kl"] = "mse"
    scale: float = 15.0
    decoder: Literal["dark", "quarter", "argmax"] = "dark"
    aligned: Literal["udp", "stride"] = "udp"
    kind: ClassVar[str] = "heatmap"
    trailing: ClassVar[int] = 2

    @property
    def cells(self) -> Size:
        """(h, w)."""
        return round(self.size[0] / self.stride), round(self.size[1] / self.stride)

    @property
    def width(self) -> float:
        """The target's sigma, cells."""
        return self.sigma if self.sigma is not None else heatmaps.cell_sigma(self.cells[0])

    @property
    def spacing(self) -> tuple[float, float]:
        """Input pixels from a cell to the next, along x and y."""
        (h, w), (height, width) = self.cells, self.size
        if self.aligned == "stride":
            return self.stride, self.stride
        return (width - 1) / max(w - 1, 1), (height - 1) / max(h - 1, 1)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """(K, h, w)."""
        return self.joints, *self.cells

    @property
    def steepest(self) -> float | None:
        """``kl``: a cross-entropy of scale times the map; ``mse``: a square, which has no bound."""
        return self.scale * STEEPEST if self.loss == "kl" else None

    def in_cells(self, target: Tensor) -> Tensor:
        """The truth's places ``(B, K, 2)``, cells."""
        return wide(target[..., :2]) / constant(self.spacing, wide(target).dtype, target.device)

    def ideal(self, target: Tensor) -> Tensor:
        """A Gaussian with peak 1 in each map, ``(B, K, h, w)``."""
        return heatmaps.gaussian_map(self.in_cells(target), self.cells, self.width, self.rounded)

    def _energy(self, difference: Tensor) -> Tensor:
        """Half the sum of squares over a lone Gaussian's: 1/2 for a blank map, whatever the size of the map."""
        return difference.square().sum((-2, -1)) / (2 * torch.pi * self.width**2)

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """``mse``: half the squared error over the energy of a target; HRNet's 0.5 MSE is this times pi sigma² / (h w).

        ``kl``: KL(softmax(scale · target) ‖ softmax(scale · map)), nats.
        """
        ideal = self.ideal(target)
        if self.loss == "mse":
            return self._energy(wide(answer) - ideal)
        return simcc.label_divergence(answer.flatten(-2), ideal.flatten(-2), self.scale)

    @torch.no_grad()
    def log_fit(self, answer: Tensor, target: Tensor, sigmas: Sequence[float] | None = None) -> Tensor:
        """:meth:`log_oks`; no gradient."""
        return self._judged(answer, self.log_oks(answer, target, sigmas))

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """scale times the map, one categorical over its cells, row by row."""
        return [self.scale * self._blanked(answer).flatten(-2)]

    def labels(self, target: Tensor) -> list[Tensor]:
        """The nearest cell, row by row."""
        x, y = self.in_cells(target).round().unbind(-1)
        h, w = self.cells
        return [(y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).long()]

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """``mse``: as :meth:`supervised` between both, over T², so that T² times it has no temperature.

        ``kl``: KL(mentor ‖ student) of the scaled maps at the temperature, nats.
        """
        unknown = self.state(mentors)[0]
        if self.loss == "mse":
            far = wide(student).unsqueeze(0) - self._blanked(mentors.detach())
            return torch.where(unknown, 0.0, self._energy(far) / temperature**2)
        own, theirs = self.distributions(student)[0], self.distributions(mentors)[0]
        return torch.where(unknown, 0.0, kl_divergence(own.unsqueeze(0), theirs, temperature))

    def _floor(self, maps: Tensor) -> Tensor:
        """What values are counted from, ``(…, B, K)``: under ``kl`` only differences within a map mean anything."""
        return heatmaps.level(maps) if self.loss == "kl" else torch.zeros_like(maps[..., 0, 0])

    @torch.no_grad()
    def decode(self, answer: Tensor) -> Tensor:
        """The peak by :attr:`decoder`; the score is its height (``kl``: above the map's median)."""
        maps = self._blanked(answer)
        cell, height = heatmaps.best_cell(maps)
        refine = {"dark": heatmaps.dark, "quarter": heatmaps.quarter}.get(self.decoder)
        floor = self._floor(maps)
        place = cell.to(maps.dtype) if refine is None else refine(maps - floor[..., None, None], cell)
        place = place * constant(self.spacing, maps.dtype, maps.device)
        score = (height - floor).clamp(0, 1).where(~self.state(answer)[0], 0.0)
        return torch.cat([place, score.unsqueeze(-1)], -1)

    def flipped(self, answer: Tensor, swap: Sequence[int]) -> Tensor:
        """Maps mirrored, joints swapped.

        Place x becomes W - 1 - x. In UDP coordinates that is a cell's counterpart; cells at multiples of the stride
        have theirs between two others (with stride 4 three quarters of a cell aside), so the maps are read there.
        """
        answer = answer.index_select(-3, constant(tuple(swap), torch.int64, answer.device))
        if self.aligned == "udp":
            return answer.flip(-1)
        maps = self._blanked(answer)
        floor = self._floor(maps)[..., None, None]
        cells = torch.arange(self.cells[1], dtype=maps.dtype, device=maps.device)
        with torch.autocast(maps.device.type, enabled=False):
            mirrored = heatmaps.columns_at(maps - floor, (self.size[1] - 1) / self.spacing[0] - cells) + floor
        return torch.where(self.state(answer)[0][..., None, None], -torch.inf, mirrored).to(answer.dtype)

    def mean(self, answers: Sequence[Tensor]) -> Tensor:
        """The mean of the maps."""
        return torch.stack([wide(answer) for answer in answers]).mean(0)

    def pooled(self, answers: Tensor, counts: Tensor) -> Tensor:
        """The mean of the maps."""
        total = torch.where(counts[..., None, None], wide(answers), 0.0).sum(0)
        number = counts.sum(0)[..., None, None]
        return torch.where(number > 0, total / number, -torch.inf)
