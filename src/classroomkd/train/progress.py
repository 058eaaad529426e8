"""How far a training has come."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from classroomkd.train.scoring import Score

__all__ = ["Progress"]


@dataclass
class Progress:
    """Where a training stands, and the scores it has seen.

    Attributes:
        epochs: how many the training has; None = nobody said.
        batches: of an epoch; None = nobody said.
        higher_is_better: whether a higher score is a better one.
        chooses: whether scores say which epoch is the best.
        epoch: whole epochs that are over.
        batch: batches of the next one that are over.
        step: steps that are over.
        history: scores on the validation part, one an evaluation.
        best: the best of them, and after which epoch; epoch -1 = none yet.
        best_weights: the network's then, on the CPU.
        lines: of ``metrics.jsonl``; None = nobody counted them.
    """

    epochs: int | None = None
    batches: int | None = None
    higher_is_better: bool = True
    chooses: bool = True
    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: list[Score] = field(default_factory=list)
    best: tuple[float, int] = (-1.0, -1)
    best_weights: dict[str, torch.Tensor] | None = None
    lines: int | None = None

    @property
    def position(self) -> float:
        """Epochs that are over, in fractions."""
        return self.epoch + self.batch / (self.batches or 1)

    @property
    def share(self) -> float:
        """The share of the training that is over, 0 to 1."""
        return min(self.position / self.epochs, 1.0) if self.epochs else 0.0

    def left_from(self, group: int) -> int:
        """Batches of this epoch from the beginning of the present group of so many; ``group`` where nobody said."""
        return group if self.batches is None else self.batches - self.batch // group * group

    def score(self, score: Score, epoch: int, weights: dict[str, torch.Tensor]) -> None:
        """Take in a score after so many epochs, and the weights where none was better."""
        self.history.append(score)
        if not self.chooses:
            return
        value, (best, since) = score.value, self.best
        better = value > best if self.higher_is_better else value < best
        if better or (since < 0 and not math.isnan(value)):
            self.best = (value, epoch)
            self.best_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "lines": self.lines,
            "best": list(self.best),
            "best_weights": self.best_weights,
            "history": [[s.value, s.loss, s.samples, s.per_class] for s in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.epoch, self.batch, self.step = (int(state[key]) for key in ("epoch", "batch", "step"))
        self.lines = state["lines"]
        self.best, self.best_weights = (state["best"][0], int(state["best"][1])), state["best_weights"]
        self.history = [Score(value, loss, per_class, n) for value, loss, n, per_class in state["history"]]
