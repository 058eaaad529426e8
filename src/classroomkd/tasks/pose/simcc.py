"""The coding SimCC: two categoricals a joint. Conventions and their sources: :mod:`classroomkd.functional.simcc`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from classroomkd.functional import kl_divergence, simcc, wide
from classroomkd.functional.bound import STEEPEST
from classroomkd.functional.constants import constant
from classroomkd.tasks.pose.base import Coding

__all__ = ["SimCC"]


@dataclass(frozen=True)
class SimCC(Coding):
    """Two categoricals a joint: an answer is logits ``(…, B, K, X + Y)``, x-bins first.

    Attributes:
        split: bins a pixel.
        beta: sharpness; every softmax is of beta times the logits. A temperature acts on top of it.
    """

    split: float = simcc.SPLIT
    beta: float = simcc.BETA
    kind: ClassVar[str] = "simcc"
    trailing: ClassVar[int] = 1

    @property
    def bins(self) -> tuple[int, int]:
        """(X, Y)."""
        return simcc.bins_of(self.size[1], self.split), simcc.bins_of(self.size[0], self.split)

    @property
    def sigmas(self) -> tuple[float, float]:
        """Of the label over x-bins and y-bins, in bins."""
        return simcc.bin_sigma(self.size[1], self.split), simcc.bin_sigma(self.size[0], self.split)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """(K, X + Y)."""
        return self.joints, sum(self.bins)

    def parts(self, answer: Tensor) -> tuple[Tensor, Tensor]:
        """An answer's x-bins and y-bins."""
        return answer[..., : self.bins[0]], answer[..., self.bins[0] :]

    def ideal(self, target: Tensor) -> Tensor:
        """Gaussians with peak 1 over both axes' bins, ``(B, K, X + Y)``."""
        axes = zip(target.unbind(-1)[:2], self.bins, self.sigmas, strict=True)
        return torch.cat([simcc.gaussian_bins(at, count, self.split, sigma) for at, count, sigma in axes], -1)

    def _misfits(self, answer: Tensor, target: Tensor) -> Tensor:
        """KL(label ‖ answer) over x plus that over y, nats."""
        pairs = zip(self.parts(answer), self.parts(self.ideal(target)), strict=True)
        x, y = (simcc.label_divergence(logits, label, self.beta) for logits, label in pairs)
        return x + y

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """KL(label ‖ answer), the sum of both axes, nats (RTMPose's loss, summed and not averaged over bins)."""
        return self._misfits(answer, target)

    def log_fit(self, answer: Tensor, target: Tensor, sigmas: Sequence[float] | None = None) -> Tensor:
        """-(KL_x + KL_y) / 2 of the label against the answer."""
        return self._judged(answer, self._misfits(answer, target) / -2)

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """beta times the x-bins, and times the y-bins."""
        return [self.beta * part for part in self.parts(self._blanked(answer))]

    def labels(self, target: Tensor) -> list[Tensor]:
        """The nearest x-bin and the nearest y-bin."""
        return [
            simcc.nearest_bin(place, count, self.split)
            for place, count in zip(target.unbind(-1)[:2], self.bins, strict=True)
        ]

    @property
    def steepest(self) -> float | None:
        """Two cross-entropies of beta times the logits."""
        return self.beta * 2**0.5 * STEEPEST

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """KL(mentor ‖ student) at the temperature, the sum of both axes (as :meth:`supervised`), nats."""
        pairs = zip(self.distributions(student), self.distributions(mentors), strict=True)
        x, y = (kl_divergence(own.unsqueeze(0), theirs, temperature) for own, theirs in pairs)
        return torch.where(self.state(mentors)[0], 0.0, x + y)

    @torch.no_grad()
    def decode(self, answer: Tensor) -> Tensor:
        """The best bins; the score is the probability within a label's sigma of them, that of the worse axis."""
        x, y = self.parts(self._blanked(answer))
        mass = [simcc.peak_mass(part, sigma, self.beta) for part, sigma in zip((x, y), self.sigmas, strict=True)]
        score = torch.minimum(*mass).where(~self.state(answer)[0], 0.0)
        return torch.stack([simcc.best_bin(x, self.split), simcc.best_bin(y, self.split), score], -1)

    def flipped(self, answer: Tensor, swap: Sequence[int]) -> Tensor:
        """x-bins mirrored, joints swapped; y-bins swapped only."""
        x, y = self.parts(answer.index_select(-2, constant(tuple(swap), torch.int64, answer.device)))
        return torch.cat([simcc.mirrored_bins(x, self.size[1], self.split), y], -1)

    def mean(self, answers: Sequence[Tensor]) -> Tensor:
        """The mean of the distributions."""
        axes = zip(*(self.parts(answer) for answer in answers), strict=True)
        return torch.cat([simcc.mean_bins(axis, self.beta) for axis in axes], -1)

    def pooled(self, answers: Tensor, counts: Tensor) -> Tensor:
        """The mean of the distributions."""
        heard, number = counts.unsqueeze(-1), counts.sum(0).unsqueeze(-1)
        blanked = torch.where(heard, wide(answers), 0.0)
        logs = [torch.log_softmax(self.beta * part, -1).masked_fill(~heard, -torch.inf) for part in self.parts(blanked)]
        means = [(log.logsumexp(0) - number.log()) / self.beta for log in logs]
        return torch.where(number > 0, torch.cat(means, -1), -torch.inf)
