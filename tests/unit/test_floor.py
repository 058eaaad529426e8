"""The cost of a step over the student alone, where the bank fills while the student trains."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import bank, data, tasks
from classroomkd.bank import LOGITS
from classroomkd.classroom import Classroom
from classroomkd.recipe import TrainSpec
from classroomkd.train import step_cost as floor
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.loop import Result, Training
from classroomkd.train.runtime import Runtime
from classroomkd.train.step_context import step_context
from classroomkd.train.step_cost import Cost, probe

CLASSES, BATCH = 10, 32
SPEC = TrainSpec(epochs=2, batch_size=BATCH, log_every=1, drop_last=True)


class Timed(nn.Module):
    """A network on a clock of its own: each pass takes so many seconds."""

    def __init__(self, now: list[float], seconds: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES), nn.Dropout(0.1))
        self.now, self.seconds = now, seconds

    def __deepcopy__(self, memo: dict[int, Any]) -> Timed:
        made = Timed(self.now, self.seconds)
        made.load_state_dict(copy.deepcopy(self.state_dict()))
        return made

    def forward(self, x: Tensor) -> Tensor:
        self.now[0] += self.seconds
        out: Tensor = self.net(x)
        return out


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 90, "test": 20, "image_size": 32}})


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds on the clock by which steps are measured."""
    seconds = [0.0]
    clock = lambda: seconds[0]  # noqa: E731
    monkeypatch.setattr(floor, "time", SimpleNamespace(process_time=clock, perf_counter=clock))
    monkeypatch.setattr(floor, "ENOUGH", 1e9)
    return seconds


@pytest.fixture
def fit(images: Any, now: list[float], tmp_path: Path) -> Callable[..., Training]:
    """A training with an exact bank: the student takes a second a pass, its two mentors 2 and 3."""

    def make(notify: Callable[[dict[str, Any]], None] = lambda event: None, stored: bool = True) -> Training:
        part = images.train.subset(torch.arange(2 * BATCH))
        kinds = [
            {
                LOGITS: bank.RowStore.open(
                    tmp_path / name,
                    {"mentor": name},
                    kind=LOGITS,
                    views=1,
                    samples=len(part),
                    codec=bank.Dense((CLASSES,)),
                    write=True,
                )
            }
            for name in ("a", "b")
        ]
        torch.manual_seed(0)
        store = bank.FillOnMissCache(kinds, part.ids, torch.device("cpu")) if stored else None
        student, *mentors = (Timed(now, seconds) for seconds in (1.0, 2.0, 3.0))
        room = Classroom(student, mentors, "average", task=tasks.create("classification"), store=store)
        views = data.make_views("none", view_seed=0, image_size=images.shape[1:])
        inputs = Inputs(images.mean, images.std, torch.device("cpu"))
        runtime = Runtime("cpu", "fp32", 1)
        return Training(runtime, room, part, None, views, inputs, SPEC, images.classes, 0, tmp_path / "run", notify)

    return make


def ratios(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [round(line["x_floor"], 6) for line in lines]


def test_a_bank_that_fills_costs_what_its_mentors_answer(fit: Callable[..., Training], tmp_path: Path) -> None:
    """With one view everything is asked in the first epoch and nothing after it."""
    result = fit().run()
    steps = result.steps // 2
    assert ratios(tmp_path) == [6.0] * steps + [1.0] * steps
    assert result.cost == pytest.approx({"step_ms": 3500.0, "floor_ms": 1000.0, "cost_ratio": 3.5})
    assert fit().run().cost["cost_ratio"] == 1.0  # the bank is full


def test_without_a_bank_every_step_costs_the_same(fit: Callable[..., Training], tmp_path: Path) -> None:
    result = fit(stored=False).run()
    assert set(ratios(tmp_path)) == {6.0}
    assert result.cost == pytest.approx({"step_ms": 6000.0, "floor_ms": 1000.0, "cost_ratio": 6.0})


def test_the_cost_of_a_resumed_training_is_that_of_all_of_it(fit: Callable[..., Training], tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise KilledError

    with pytest.raises(KilledError):
        fit(kill).run()
    job = fit()
    result: Result = job.run(resume=True)
    assert result.cost["cost_ratio"] == pytest.approx(3.5)
    store = job.classroom.mentors.store
    assert isinstance(store, bank.FillOnMissCache)
    assert store.asked == [BATCH * result.steps // 2] * 2
    assert ratios(tmp_path)[-1] == 1.0


def test_the_probe_leaves_nothing_in_the_bank(fit: Callable[..., Training], images: Any) -> None:
    job = fit()
    room, store = job.classroom, job.classroom.mentors.store
    assert isinstance(store, bank.FillOnMissCache)
    context = step_context(job.runtime, room, job.inputs, SPEC, topics=CLASSES, last=False)
    batch = next(Batches(job.part, job.views, BATCH, 0).epoch(0))
    before, random = copy.deepcopy(room.state_dict()), torch.get_rng_state()
    found = probe(context, batch)
    assert found == pytest.approx({"floor_ms": 1000.0, "step_ms": 1000.0, "asked_ms": 6000.0, "cost_ratio": 1.0})
    assert room.mentors.store is store
    assert (store.asked, room.mentors.forwards, room.mentors.answered, context.progress.step) == ([0, 0], 0, 0, 0)
    assert [stores[LOGITS].count() for stores in store.stores] == [0, 0]
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in room.state_dict().items())


def test_a_rehearsed_bank_answers_zeros_where_nothing_is_stored(fit: Callable[..., Training]) -> None:
    store = fit().classroom.mentors.store
    assert isinstance(store, bank.FillOnMissCache)
    ids = torch.nonzero(store.at >= 0).flatten()[:4]

    def refuse(mentor: int, rows: Tensor) -> dict[str, Tensor]:
        raise AssertionError("asked")

    full, empty = (floor.rehearsed(store, stored=stored) for stored in (True, False))
    full.stage(ids, torch.zeros_like(ids), refuse)
    assert torch.equal(full.lookup(ids, ids), torch.zeros(2, 4, CLASSES))
    empty.stage(ids, torch.zeros_like(ids), lambda mentor, rows: {LOGITS: torch.full((4, CLASSES), 2.0 + mentor)})
    assert empty.lookup(ids, ids).mean((1, 2)).tolist() == [2.0, 3.0]
    assert [stores[LOGITS].count() for stores in store.stores] == [0, 0]


def test_figures_of_an_older_checkpoint_are_taken_up() -> None:
    cost = Cost({"step_ms": 3.0, "floor_ms": 1.0, "cost_ratio": 3.0}, None)
    cost.load_state_dict({"step_ms": 4.0, "floor_ms": 2.0, "cost_ratio": 2.0})
    assert cost.whole() == {"step_ms": 4.0, "floor_ms": 2.0, "cost_ratio": 2.0}
    assert Cost({}, None).interval() is None
    assert Cost({}, None).whole() == {}
