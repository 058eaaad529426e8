"""How the networks of segmentation are built, joined and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from classroomkd.classroom import Calibration, Task
from classroomkd.errors import UserError
from classroomkd.functional import pairs_apart, vote
from classroomkd.tasks.runner import TaskRunner
from classroomkd.train.scoring import Score, calibration_of
from figure_parts import networks
from figure_parts.figures import IGNORE
from figure_parts.task import Segmentation, cells_of, units_of

if TYPE_CHECKING:
    from classroomkd.recipe import TrainSpec
    from classroomkd.recipe.schema import MentorSpec

__all__ = ["SegmentationRunner", "score_cells"]


def score_cells(answers: Tensor, target: Tensor, classes: int) -> Score:
    """Mean intersection over union of logits ``(N, C, h, w)`` and masks ``(N, H, W)``, and the share of right cells.

    Over all labelled cells of the samples together; a class that is in neither counts for nothing.
    """
    true, predicted = cells_of(target), answers.argmax(1).flatten(1)
    known = true != IGNORE
    pairs = (
        torch.bincount(true[known] * classes + predicted[known], minlength=classes**2).view(classes, classes).double()
    )
    both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    shares = [float(b / e) if e > 0 else None for b, e in zip(both, either, strict=True)]
    mean = [share for share in shares if share is not None]
    loss = Segmentation().supervised(answers.float(), target).sum() / known.sum().clamp_min(1)
    right = float(both.sum() / pairs.sum().clamp_min(1))
    return Score(sum(mean) / max(len(mean), 1), float(loss), shares, len(target), {"right cells": right})


class SegmentationRunner(TaskRunner):
    """A class a cell; mean IoU."""

    metric = "mean IoU"
    samples = "pictures"
    has_together = True

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """``(classes, H/4, W/4)``."""
        _, height, width = self.context.data.shape
        return len(self.context.classes), height // networks.STRIDE, width // networks.STRIDE

    def task_for(self, train: TrainSpec, mentor: MentorSpec | None = None, module: nn.Module | None = None) -> Task:
        """See the base."""
        if train.label_smoothing:
            raise UserError("train.label_smoothing: segmentation has none; leave it out")
        return Segmentation()

    def resolve(self, spec: str, mentor: MentorSpec | None = None) -> nn.Module:
        """See the base."""
        return networks.build(spec, len(self.context.classes), self.context.data.shape[0])

    def expect(self, answer: Tensor, role: str, mentor: MentorSpec | None) -> None:
        """See the base."""
        if tuple(answer.shape[1:]) != self.answer_shape:
            raise UserError(f"{role}: the network answers {tuple(answer.shape[1:])}, not {self.answer_shape}")

    def refuse_training(self, index: int) -> str | None:
        """See the base: specialists and wrong labels are made by a sample's class."""
        train = self.context.recipe.mentors[index].train
        if train is not None and (train.classes is not None or train.label_noise):
            return f"mentors.{index}.train: a picture has no class of its own; use samples: N for a weaker mentor"
        return None

    def score(self, answers: Tensor, target: Tensor, ids: Tensor) -> Score:
        """See the base."""
        return score_cells(answers, target.to(answers.device), len(self.context.classes))

    def calibration(self, answers_MN: Tensor, target: Tensor) -> Calibration:
        """See the base, over all labelled cells."""
        cells = cells_of(target).flatten()
        known = cells != IGNORE
        return calibration_of(units_of(answers_MN).flatten(1, 2)[:, known], cells[known])

    def together(self, answers_MN: Tensor) -> Tensor:
        """See the base: the logarithm of their mean probability in every cell."""
        return vote(answers_MN.movedim(2, -1)).log().movedim(-1, 1)

    def apart(self, answers_MB: Tensor) -> Tensor:
        """See the base: the cells whose likeliest class is not the same."""
        return pairs_apart(answers_MB.movedim(2, -1)).flatten(1).mean(1)

    def chance(self) -> tuple[float, str]:
        """See the base: everything taken for the most frequent class."""
        cells = cells_of(self.context.data.val.target).flatten()
        counts = torch.bincount(cells[cells != IGNORE], minlength=len(self.context.classes)).double()
        share = float(counts.max() / counts.sum()) / int((counts > 0).sum())
        return share, f"one class everywhere has {share:.1%}"
