"""What matters on a GPU and can be held without one: fp16's rules, the average's state, which device is meant."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from classroomkd import data, methods, models
from classroomkd.classroom import Classroom
from classroomkd.data import make_views
from classroomkd.recipe import TrainSpec
from classroomkd.run import mentor_cache as answering
from classroomkd.train import memory_format as student_layout
from classroomkd.train import runtime as runtime_
from classroomkd.train.ema import Average
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.step import StepRunner


def room() -> Classroom:
    return Classroom(models.create("convnet4", 10), (), methods.create("none"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fp16_takes_the_optimiser_that_its_scaler_can_skip_and_clip(optimizer: str) -> None:
    for precision, fused in (("fp32", True), ("bf16", True), ("fp16", False)):
        made = build_optimizer(room(), TrainSpec(optimizer=optimizer, lr=0.1, precision=precision))
        assert made.defaults["fused"] is fused
        assert not (precision == "fp16" and getattr(made, "_step_supports_amp_scaling", False))  # what Fabric asks


def test_every_training_begins_with_a_new_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    scaler = SimpleNamespace(load_state_dict=told.append)
    monkeypatch.setattr(runtime_.Runtime, "scaler", property(lambda self: scaler))
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: SimpleNamespace(state_dict=lambda: {"scale": 2.0**16}))
    classroom, run, device = room(), runtime_.Runtime("cpu"), torch.device("cpu")
    for _ in range(2):
        inputs = Inputs((0.5,) * 3, (0.5,) * 3, device)
        optimizer = build_optimizer(classroom, TrainSpec(lr=0.1))
        StepRunner(run, classroom, optimizer, inputs, Record(0, 10, device))
    assert told == [{"scale": 2.0**16}] * 2


def test_the_average_is_that_of_torch_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    average: Any = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    wanted, ours = AveragedModel(network, multi_avg_fn=average, use_buffers=True), Average(network, 0.9)
    for step in range(5):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
        network(torch.randn(8, 3, 8, 8))  # moves the norm's buffers
        if step == 2:
            state, ours = copy.deepcopy(ours.state_dict()), Average(network, 0.9)
            ours.load_state_dict(state)
        wanted.update_parameters(network)
        ours.update(network)
    for (name, a), b in zip(wanted.module.state_dict().items(), ours.module.state_dict().values(), strict=True):
        assert torch.equal(a, b) or name.endswith("num_batches_tracked"), name
    assert ours.module[1].num_batches_tracked == network[1].num_batches_tracked == 5
    assert not any(value.requires_grad for value in ours.module.parameters())


@pytest.mark.parametrize(("asked", "index"), [("cuda", 0), ("cuda:2", 2)])
def test_the_gpu_of_the_run_is_the_one_that_torch_means(
    asked: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: now.__setitem__(0, torch.device("cuda", device).index))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: now[0])
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(runtime_, "_fabric", lambda device, world, precision: SimpleNamespace(device=device))
    assert runtime_.Runtime(asked).device == torch.device("cuda", index)
    assert now == [index]


def test_the_layout_is_measured_in_the_precision_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()

    def loss(said: Tensor) -> Tensor:
        seen.add(said.dtype)
        return said.float().square().mean()

    found = student_layout.choose_layout(
        models.create("convnet4", 10), torch.randn(8, 3, 32, 32), loss, bf16=True, under=torch.bfloat16
    )
    assert seen == {torch.bfloat16}
    assert found["precision"] == "fp32"  # not the question here

    asked: list[Any] = []
    fixed = {"channels_last": True, "precision": "fp32", "ratios": {}}
    monkeypatch.setattr(student_layout, "choose_layout", lambda *_, under: asked.append(under) or fixed)
    run: Any = SimpleNamespace(precision="bf16", is_zero=True, device=torch.device("cpu"), reduce=lambda x: x)
    assert student_layout.settle(nn.Linear(1, 1), torch.zeros(1, 1), run, None, False)
    assert asked == [torch.bfloat16]


@pytest.mark.parametrize(("device", "pinned"), [("cuda:0", 4), ("cpu", 0)])
def test_batches_for_a_gpu_wait_in_pinned_memory(device: str, pinned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    part = data.load({"source": "puppets", "options": {"train": 40, "test": 20}}).train
    calls: list[int] = []

    def pin(value: Tensor) -> Tensor:
        calls.append(len(value))
        return value

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    views = make_views("none", view_seed=0, image_size=tuple(part.pixels.shape[-2:]))
    batches = Batches(part, views, 8, seed=0, device=torch.device(device))
    assert len(list(batches._fetched([(torch.arange(8),)], 0))) == 1
    assert calls == [8] * pinned


def test_a_gpu_holds_an_epochs_answers_in_a_quarter_of_what_it_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * 2**30, 140 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * 2**30)
    assert answering.slab_most(torch.device("cuda:0")) == 20 * 2**30
    assert answering.slab_most(torch.device("cpu")) == 2**30
