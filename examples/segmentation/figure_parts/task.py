"""Segmentation: an answer is ``(B, C, h, w)`` logits, a target a mask ``(B, H, W)``; the units are the h·w cells.

The class of a cell is that of the pixel in its middle. A cell whose pixel has no label (``IGNORE``) does not count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.classroom.task import Task
from classroomkd.errors import UserError
from classroomkd.functional import kl_divergence, wide
from figure_parts.figures import IGNORE
from figure_parts.networks import STRIDE

__all__ = ["Segmentation", "cells_of", "units_of"]


def cells_of(target: Tensor) -> Tensor:
    """Masks ``(B, H, W)`` at the grid's cells, ``(B, U)`` int64."""
    return target[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].flatten(1).long()


def units_of(answer: Tensor) -> Tensor:
    """Logits ``(…, B, C, h, w)`` as ``(…, B, U, C)``."""
    return answer.flatten(-2).transpose(-1, -2)


class Segmentation(Task):
    """A class a cell."""

    name = "segmentation"
    has_unlabelled_units = True

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every cell, ``(B, U)``, nats; 0 where there is no label."""
        return F.cross_entropy(wide(answer).flatten(2), cells_of(target), ignore_index=IGNORE, reduction="none")

    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """log p(true class) of every cell, ``(B, U)`` or ``(M, B, U)``; 0 where there is no label."""
        log_p = torch.log_softmax(wide(units_of(answer)), -1)
        true, mask = self.unit_labels(target), self.mask(target)
        index = true.expand(log_p.shape[:-1]).unsqueeze(-1)
        return torch.where(mask, log_p.gather(-1, index).squeeze(-1), 0.0)

    def mask(self, target: Tensor) -> Tensor:
        """Cells with a label, ``(B, U)``."""
        return cells_of(target) != IGNORE

    def unit_labels(self, target: Tensor) -> Tensor:
        """A cell is about its class, ``(B, U)``; 0 where there is no label."""
        cells = cells_of(target)
        return torch.where(cells == IGNORE, 0, cells)

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """One over the classes of every cell, ``(…, B, U, C)``."""
        return [units_of(answer)]

    def labels(self, target: Tensor) -> list[Tensor]:
        """The class of every cell, ``(B, U)``."""
        return [self.unit_labels(target)]

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """KL(mentor ‖ student) of every cell at the temperature, ``(M, B, U)``, without T²."""
        return kl_divergence(units_of(student).unsqueeze(0), units_of(mentors), temperature)

    def check(self, student: Tensor, target: Tensor) -> None:
        """The answer must have a cell for every one of the mask's."""
        if (
            student.dim() != 4
            or target.dim() != 3
            or student.shape[-2] * student.shape[-1] != cells_of(target).shape[1]
        ):
            raise UserError(
                f"masks {tuple(target.shape)} want logits (B, classes, H/{STRIDE}, W/{STRIDE}); the student gave "
                f"{tuple(student.shape)}"
            )
