"""No mentor is asked about a few rows alone, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd.bank import LOGITS, Bank
from classroomkd.classroom import Classroom, Mentor
from classroomkd.run import mentor_cache as answering
from classroomkd.train.inputs import Inputs
from classroomkd.train.meter import Record
from classroomkd.train.padding import LEAST, pad_batch
from classroomkd.train.runtime import Runtime
from classroomkd.train.step import StepRunner

PIXELS = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rows", [1, 5, 15, 16, 17, 40])
def test_rows_come_again_until_there_are_enough(rows: int) -> None:
    found = pad_batch(torch.arange(rows))
    assert len(found) == max(rows, LEAST)
    assert torch.equal(found, torch.arange(len(found)) % rows)


class Seen(nn.Module):
    """A network that counts the rows it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = models.create("vgg8", 10)
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        said: Tensor = self.network(x)
        return said


class Missing(Bank):
    """It lacks some rows of a batch and keeps what is said about them."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.device = rows, torch.device("cpu")
        self.said: Mapping[str, Tensor] = {}
        self.shapes = {}

    def stage(self, ids: Tensor, views: Tensor, ask: Callable[[int, Tensor], Mapping[str, Tensor]]) -> None:
        self.said = ask(0, self.rows)

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        return torch.zeros(1, len(ids), 10)

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError(tap)


def test_what_is_missing_in_a_batch_is_asked_in_company() -> None:
    runtime, seen = Runtime("cpu", "fp32", 1), Seen()
    inputs = Inputs([0.5] * 3, [0.25] * 3, runtime.device)
    rows = torch.tensor([3, 39, 20])
    bank = Missing(rows)
    room = Classroom(models.create("convnet8", 10), [Mentor(seen)], "kd", image_shape=(3, 32, 32), store=bank)
    optimizer = torch.optim.SGD(room.student.parameters(), lr=0.1)
    context = StepRunner(runtime, room, optimizer, inputs, Record(1, 10, runtime.device))
    index = torch.arange(len(PIXELS))
    batch: dict[str, Any] = {"pixels": PIXELS, "target": index % 10, "ids": index, "views": index * 0}
    seen.rows.clear()
    context.lesson(batch)
    assert seen.rows == [LEAST]
    assert bank.said[LOGITS].shape == (3, 10)
    torch.testing.assert_close(bank.said[LOGITS], seen(inputs(PIXELS))[rows])


def test_filling_asks_about_sixteen_rows_too() -> None:
    asked: list[int] = []

    def prepare(inputs: Tensor, mean: Any, std: Any) -> Tensor:
        asked.append(len(inputs))
        return inputs

    class Plain:
        mean, std = (0.5,), (0.5,)

        def __call__(self, pixels: Tensor) -> Tensor:
            return pixels.float()

    class Speaker:
        def __call__(self, inputs: Tensor) -> Any:
            return SimpleNamespace(prediction=inputs.flatten(1), features={"tap": 2 * inputs})

    speaker: Any = Speaker()
    speaker.prepare = prepare
    setup: Any = SimpleNamespace(inputs=Plain(), runtime=SimpleNamespace(autocast=nullcontext))
    pixels = torch.arange(12.0).view(3, 1, 2, 2)
    said = answering.asker(setup, speaker)(pixels)
    assert asked == [LEAST]
    assert torch.equal(said["logits"], pixels.flatten(1))
    assert torch.equal(said["tap"], 2 * pixels)
