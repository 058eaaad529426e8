"""Branches in the training loop: who trains what, averages by update, resume, and no trace of what is only measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import data, methods, models
from classroomkd.classroom import Classroom
from classroomkd.recipe import TrainSpec
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Training
from classroomkd.train.runtime import Runtime

SHAPE = (3, 32, 32)
SPEC = TrainSpec(epochs=2, batch_size=32, log_every=2, lr=0.02)


class _KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 100, "test": 40, "image_size": 32}})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", "fp32", 1)


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.create("convnet4", num_classes=10)


def room(name: str = "pcl", **options: Any) -> Classroom:
    made = methods.create(name, **options)
    branches = [net(1 + i) for i in range(made.needs.branches - 1)]
    torch.manual_seed(9)
    return Classroom(net(0), (), made, image_shape=SHAPE, branches=branches)


def job(classroom: Classroom, images: Any, runtime: Runtime, folder: Path | None = None, stop_after: int | None = None,
        spec: TrainSpec = SPEC, measure: bool = False) -> Training:  # fmt: skip
    def notify(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == stop_after:
            raise _KilledError

    views = data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:])
    inputs = Inputs(images.mean, images.std, runtime.device)
    return Training(
        runtime, classroom, images.train, images.val, views, inputs, spec, images.classes, 0, folder, notify, measure
    )


def tensors(classroom: Classroom) -> dict[str, Tensor]:
    found = {name: value.clone() for name, value in classroom.state_dict().items()}
    averaged = classroom.averaged
    nets = {} if averaged is None else averaged.networks
    return found | {f"mean {n}.{k}": v.clone() for n, net in nets.items() for k, v in net.state_dict().items()}


@pytest.mark.parametrize("name", ["one", "pcl"])
def test_every_parameter_is_trained_by_one_optimiser(name: str, images: Any, runtime: Runtime) -> None:
    """The trunk by the student's."""
    classroom = room(name)
    training = job(classroom, images, runtime)
    training.build(False)
    runner = training.runner
    held = [runner.raw_optimizer, *(peer.raw_optimizer for peer in runner.peers.values())]
    ids = [id(p) for optimizer in held for group in optimizer.param_groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in classroom.parameters()}
    students = {id(p) for group in runner.raw_optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in classroom.student.parameters()} <= students


@pytest.mark.parametrize("accumulate", [1, 2])
def test_averages_count_updates_and_not_batches(accumulate: int, images: Any, runtime: Runtime) -> None:
    classroom = room()
    training = job(classroom, images, runtime, spec=SPEC.model_copy(update={"accumulate": accumulate}))
    training.run()
    updates = -(-len(training.batches) // accumulate) * SPEC.epochs
    assert classroom.averaged is not None
    assert classroom.averaged.updates == updates


@pytest.mark.parametrize(
    ("name", "options"), [("one", {}), ("pcl", {}), ("pcl", {"views": 1, "buffers": "own"})], ids=str
)
def test_resumed_to_the_bit_in_the_middle(
    name: str, options: dict[str, Any], images: Any, runtime: Runtime, tmp_path: Path
) -> None:
    whole, cut, again = (room(name, **options) for _ in range(3))
    job(whole, images, runtime, tmp_path / "whole").run()
    with pytest.raises(_KilledError):
        job(cut, images, runtime, tmp_path / "cut", stop_after=1).run()
    job(again, images, runtime, tmp_path / "cut").run(resume=True)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


@pytest.mark.parametrize("options", [{}, {"views": 1, "buffers": "own"}], ids=str)
def test_measuring_a_step_leaves_no_trace(options: dict[str, Any], images: Any, runtime: Runtime) -> None:
    """Averages see every lesson, also of steps that are only tried."""
    classroom = room(**options)
    training = job(classroom, images, runtime, measure=True)
    training.build(False)
    before = tensors(classroom)
    training.rehearse()
    after = tensors(classroom)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert classroom.averaged is not None
    assert classroom.averaged.updates == 0
