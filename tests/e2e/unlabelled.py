"""A folder of pictures that nobody has labelled, and networks that know what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from colours import Colours
from torch import Tensor, nn

from classroomkd.errors import RunStopped, UserError
from classroomkd.run import students

__all__ = ["Channels", "killed_within_an_epoch", "photos", "small"]


class Channels(nn.Module):
    """Knows the colours without training: its logits are the mean of each channel, times ``sure``, in some order."""

    def __init__(self, sure: float = 4.0, order: tuple[int, ...] = (0, 1, 2)) -> None:
        super().__init__()
        self.head = nn.Linear(3, len(order), bias=False)
        with torch.no_grad():
            self.head.weight.copy_(sure * torch.eye(3)[list(order)])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def small(seed: int = 0) -> nn.Module:
    """A student."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def photos(folder: Path, n: int = 60) -> Path:
    """``n`` pictures of three colours, flat."""
    folder.mkdir(parents=True)
    for i in range(n):
        Colours(n)[i][0].save(folder / f"{i:03}.png")
    return folder


@contextmanager
def killed_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training inside writes a checkpoint in its second epoch, after two batches, and dies of it."""
    step = students.Training.step

    def killed(fit: Any, batch: Any) -> None:
        step(fit, batch)
        if fit.progress.epoch == 1 and fit.progress.batch == 2:
            fit._checkpoint()
            raise RunStopped("killed")

    with monkeypatch.context() as patch:
        patch.setattr(students.Training, "step", killed)
        with pytest.raises(UserError, match="killed"):
            yield
