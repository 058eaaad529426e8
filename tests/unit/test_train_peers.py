"""Peers in the training loop: optimisers of their own, both orders, resume, what is not finite, the ensemble."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import data, methods, tasks
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.errors import Diverged
from classroomkd.functional.voting import pairs_apart, vote
from classroomkd.recipe import TrainSpec
from classroomkd.train import checkpoint
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Result, Training
from classroomkd.train.peers import Together
from classroomkd.train.runtime import Runtime
from classroomkd.train.scoring import answers, score

CLASSES = 10
ORDERS = ("jacobi", "gauss_seidel")
KINDS = (*ORDERS, "taught")  # where one of the peers is a teacher, which steps first
SPEC = TrainSpec(epochs=3, batch_size=32, log_every=2, lr=0.02, ema=0.9)


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 120, "test": 60, "image_size": 32}})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", "fp32", 1)


def net(seed: int, dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(),
        nn.Linear(256, CLASSES),
    )  # fmt: skip


def room(order: str = "jacobi", names: str = "bc", dropout: float = 0.2) -> Classroom:
    peers = {name: net(1 + i, dropout) for i, name in enumerate(names)}
    task, taught = tasks.create("classification"), order == "taught"
    made = methods.create("kdml", order="gauss_seidel", ramp=0) if taught else methods.create("dml", order=order)
    return Classroom(net(0, dropout), (), made, task=task, peers=peers, teachers=names[-1] if taught else "")


class _KilledError(Exception):
    pass


def fit(
    classroom: Classroom,
    images: Any,
    runtime: Runtime,
    folder: Path | None = None,
    *,
    spec: TrainSpec = SPEC,
    peers: Mapping[str, TrainSpec] | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    measure: bool = False,
) -> Result | None:
    def notify(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == stop_after:
            raise _KilledError

    views = data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:])
    inputs = Inputs(images.mean, images.std, runtime.device)
    job = Training(
        runtime, classroom, images.train, images.val, views, inputs, spec, images.classes, 0, folder, notify, measure,
        peers=peers or {}, together=lambda told: vote(told).log(), apart=pairs_apart,
    )  # fmt: skip
    try:
        return job.run(resume=resume)
    except _KilledError:
        return None


def tensors(classroom: Classroom) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in classroom.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("order", KINDS)
def test_a_killed_training_goes_on_to_the_same_bits(order: str, images: Any, runtime: Runtime, tmp_path: Path) -> None:
    whole = room(order)
    done = fit(whole, images, runtime, tmp_path / "whole")
    assert fit(room(order), images, runtime, tmp_path / "parts", stop_after=1) is None
    again = room(order)
    resumed = fit(again, images, runtime, tmp_path / "parts", resume=True)
    assert done is not None
    assert resumed is not None
    assert equal(tensors(whole), tensors(again))
    assert list(done.peers) == list(resumed.peers) == ["b", "c"]
    for name, one in done.peers.items():
        other = resumed.peers[name]
        assert (one.best_epoch, one.best_value) == (other.best_epoch, other.best_value)
        assert one.ema is not None
        assert other.ema is not None
        assert equal(one.ema, other.ema)
    lines = [(tmp_path / kind / "metrics.jsonl").read_text().splitlines() for kind in ("whole", "parts")]
    vals = [[json.loads(line) for line in some if '"val"' in line] for some in lines]
    assert vals[0] == vals[1]
    assert len(vals[0]) == 3
    assert set(vals[0][0]["peers"]) == {"b", "c"}
    assert 0 <= vals[0][0]["ensemble"] <= 1
    assert 0 <= vals[0][0]["disagreement"] <= 1
    state = checkpoint.load(tmp_path / "whole" / "checkpoints" / "last.pt")
    assert {"peers.b.network", "peers.b.scores", "peers.b.average"} <= set(state)
    assert "peers.b.optimizer" not in state  # of no use any more


@pytest.mark.parametrize("order", KINDS)
def test_the_loop_takes_the_steps_of_a_plain_one(order: str, images: Any, runtime: Runtime) -> None:
    """Two epochs in both, with the batches that the loop has seen."""
    seen: list[tuple[Tensor, Tensor]] = []
    spec = TrainSpec(epochs=2, batch_size=32, lr=0.02, schedule="constant", channels_last=False)
    mine, plain = room(order, dropout=0.0), room(order, dropout=0.0)
    collect = mine.collect

    def watched(inputs: Tensor, target: Tensor, **more: Any) -> Any:
        seen.append((inputs.clone(), target.clone()))
        return collect(inputs, target, **more)

    mine.collect = watched  # type: ignore[method-assign]
    fit(mine, images, runtime, spec=spec)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    context = PlainContext(plain.train(), optimizer)
    for inputs, target in seen:
        plain.method.step(context, {"inputs": inputs, "target": target})
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_peer_has_a_rate_and_a_decay_of_its_own(images: Any, runtime: Runtime) -> None:
    alike, slower = room(), room()
    fit(alike, images, runtime, spec=SPEC)
    fit(slower, images, runtime, spec=SPEC, peers={"b": SPEC.model_copy(update={"lr": 1e-9, "weight_decay": 0.0})})
    start = net(1).state_dict()
    moved = [
        (classroom.peers.networks["b"].state_dict()["0.weight"] - start["0.weight"]).abs().max()
        for classroom in (alike, slower)
    ]
    assert moved[1] < 1e-5 < moved[0]


@pytest.mark.parametrize("order", KINDS)
def test_clipping_is_by_trainee(order: str, images: Any, runtime: Runtime) -> None:
    """A loud peer does not make the student's steps shorter: it takes the same first step beside a quiet one."""
    spec = TrainSpec(epochs=1, batch_size=120, lr=0.1, clip=1e-3, momentum=0.0, weight_decay=0.0)
    one = room(order, names="b", dropout=0.0)
    before = tensors(one)
    fit(one, images, runtime, spec=spec)
    for part in ("reader", "peers.readers.b"):
        change = [
            (value - before[name]).flatten()
            for name, value in one.state_dict().items()
            if name.startswith(part) and "running" not in name and "num_batches" not in name
        ]
        assert float(torch.cat(change).norm()) == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("order", KINDS)
def test_accumulated_batches_are_one_step(order: str, images: Any, runtime: Runtime) -> None:
    spec = TrainSpec(epochs=1, batch_size=30, accumulate=4, lr=0.1, momentum=0.0)
    one = room(order, dropout=0.0)
    result = fit(one, images, runtime, spec=spec)
    assert result is not None
    assert result.steps == 4
    assert not equal(one.peers.networks["b"].state_dict(), net(1).state_dict())


@pytest.mark.parametrize("order", KINDS)
def test_a_peer_that_is_not_finite_stops_the_training_and_is_named(
    order: str, images: Any, runtime: Runtime, tmp_path: Path
) -> None:
    one = room(order)
    with torch.no_grad():
        next(one.peers.networks["c"].parameters())[0] = float("nan")
    before = tensors(one)
    with pytest.raises(Diverged, match="of peer 'c' is not finite"):
        fit(one, images, runtime, tmp_path, spec=SPEC.model_copy(update={"log_every": 1}))
    for name, value in one.state_dict().items():  # no loss that is not finite reached anybody's weights
        if not name.startswith("peers.readers.c") and "running" not in name and "num_batches" not in name:
            assert value.isfinite().all(), name
            if order == "jacobi":
                assert torch.equal(value, before[name]), name


def test_the_log_says_what_each_adds_to_the_others_loss(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    fit(room("taught"), images, runtime, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    for line in train:
        assert {learner: set(row) for learner, row in line["given"].items()} == {
            "student": {"b", "c"},
            "b": {"student", "c"},
        }
        assert line["given"]["student"]["b"] == pytest.approx(line["terms"]["mutual"], abs=2e-6)
        assert line["given"]["b"]["c"] == pytest.approx(line["terms"]["b.distilled"], abs=2e-6)


def test_what_was_not_yet_read_of_it_is_kept_by_a_checkpoint(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"log_every": 1000, "epochs": 2, "checkpoint_every": 1})
    for kind, stop in (("whole", None), ("parts", 1)):
        fit(room("taught"), images, runtime, tmp_path / kind, spec=spec, stop_after=stop)
    state = checkpoint.load(tmp_path / "parts" / "checkpoints" / "last.pt")
    assert state["record"]["interval"]["pairs"][0] == ["student", "c"]
    fit(room("taught"), images, runtime, tmp_path / "parts", spec=spec, resume=True)
    found = [
        [json.loads(line).get("given") for line in (tmp_path / kind / "metrics.jsonl").read_text().splitlines()]
        for kind in ("whole", "parts")
    ]
    assert found[0] == found[1]


def test_measuring_the_cost_changes_nothing(images: Any, runtime: Runtime) -> None:
    for order in ORDERS:
        one, other = room(order), room(order)
        measured = fit(one, images, runtime, measure=True)
        fit(other, images, runtime)
        assert measured is not None
        assert measured.cost["cost_ratio"] > 1.5  # three networks' steps over one's
        assert equal(tensors(one), tensors(other))


def test_the_ensemble_is_the_mean_of_probabilities(images: Any, runtime: Runtime) -> None:
    nets = [net(i) for i in range(3)]
    inputs = Inputs(images.mean, images.std, runtime.device)
    told = [answers(one, images.test, inputs)[0].softmax(-1) for one in nets]
    joined, target = answers(Together(nets, lambda said: vote(said).log()), images.test, inputs)
    mean = torch.stack(told).mean(0)
    torch.testing.assert_close(joined.exp(), mean)
    assert score(joined, target, CLASSES).value == float((mean.argmax(-1) == target).double().mean())
    assert all(layer.training for one in nets for layer in one.modules())
    ensemble = Together(nets, lambda said: vote(said).log(), pairs_apart)
    assert ensemble.disagreement() is None
    answers(ensemble, images.test, inputs, 32)
    classes = [said.argmax(-1) for said in told]
    differ = [(classes[i] != classes[j]).double().mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert ensemble.disagreement() == pytest.approx(float(torch.stack(differ).mean()))
