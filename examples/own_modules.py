"""The whole job with networks and data of one's own: python examples/own_modules.py [RUN_FOLDER] (seconds on a CPU).

Trains a mentor elsewhere, hands it over with a student and a torch Dataset, and gets a run folder with a report.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import classroomkd as ck


class Shapes(Dataset[tuple[np.ndarray, int]]):
    """Discs, squares and crosses in noise: uint8 images (32, 32, 3), the same each time they are asked for."""

    classes = ("disc", "square", "cross")

    def __init__(self, count: int, seed: int) -> None:
        """``count`` images; another seed gives others."""
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Image ``i`` and its class."""
        if not 0 <= i < self.count:
            raise IndexError(i)
        draw = np.random.default_rng((self.seed, i))
        y, x = np.mgrid[:32, :32] - draw.integers(10, 22, (2, 1, 1))
        r = draw.integers(4, 9)
        form = (x * x + y * y < r * r, np.maximum(abs(x), abs(y)) < r, np.minimum(abs(x), abs(y)) < r // 3)[i % 3]
        image = draw.normal(80, 20, (32, 32, 3)) + form[..., None] * draw.integers(60, 130)
        return image.clip(0, 255).astype(np.uint8), i % 3


def net(width: int) -> nn.Module:
    """A small network, ours from first to last layer."""
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, padding=2), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(8 * width, 3),
    )  # fmt: skip


def trained_elsewhere(images: ck.data.ImageSet) -> nn.Module:
    """A mentor as one has it: trained by a loop that knows nothing of this package."""
    mentor = net(16)
    optimizer = torch.optim.AdamW(mentor.parameters(), lr=3e-3)
    for x, y in batches(images):
        nn.functional.cross_entropy(mentor(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return mentor


def batches(images: ck.data.ImageSet, epochs: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """Six epochs of a bigger set, normalised as the student's data are: a mentor sees what the student sees."""
    loader = DataLoader(Shapes(900, seed=7), batch_size=32, shuffle=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (images.mean, images.std))
    for _ in range(epochs):
        for x, y in loader:
            yield (x.permute(0, 3, 1, 2) / 255 - mean) / std, y


def main(out: Path) -> None:
    """Distil, report, export."""
    torch.manual_seed(0)
    images = ck.data.load((Shapes(240, seed=1), Shapes(300, seed=2)))
    run = ck.distill(
        student=net(6),
        mentors={"ours": trained_elsewhere(images), "zoo": "convnet8"},  # a name is trained by the run
        data=images,
        method="classroomkd",
        out=out,
        epochs=12, batch_size=16, optimizer="adamw", lr=3e-3, schedule="cosine",
    )  # fmt: skip
    for mentor in run.summary["mentors"]:
        print(f"mentor {mentor['name']:8s} {mentor['accuracy']:.1%}")
    print(f"student         {run.accuracy[0]:.1%}")
    print(run.report(), run.export(out / "shipped.safetensors"))
    answer = run.student()(torch.zeros(1, 3, 32, 32))
    print(images.classes[int(answer.argmax())])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-modules"))
