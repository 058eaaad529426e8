"""How loud the mentors are: the ratio by hand, no trace of the measurement, and who is told."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import bank, data, methods, tasks
from classroomkd.bank import LOGITS
from classroomkd.classroom import Classroom
from classroomkd.cli.app import main
from classroomkd.functional import kl_divergence
from classroomkd.recipe import TrainSpec
from classroomkd.train import checkpoint
from classroomkd.train.gradient_scale import LOUD, Scale, loud, measure
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.runtime import Runtime
from classroomkd.train.step import StepRunner
from classroomkd.train.step_context import step_context

CLASSES, BATCH = 10, 16
ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    """A script of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 8 * 8, CLASSES)
    )


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}})


@pytest.fixture
def made(images: Any) -> Callable[..., tuple[StepRunner, dict[str, Tensor]]]:
    """A context and a batch; the student and the mentors are the same every time."""

    def make(*parts: Any, store: Any = None) -> tuple[StepRunner, dict[str, Tensor]]:
        torch.manual_seed(1)
        student, *mentors = (net() for _ in range(3))
        method = methods.compose([part if isinstance(part, tuple) else (part, {}) for part in parts])
        room = Classroom(student, mentors, method, task=tasks.create("classification"), image_shape=images.shape)
        room.mentors.store = store
        views = data.make_views("none", view_seed=0, image_size=images.shape[1:])
        batch = next(Batches(images.train, views, BATCH, 0).epoch(0))
        spec, runtime = TrainSpec(batch_size=BATCH), Runtime("cpu", "fp32", 1)
        inputs = Inputs(images.mean, images.std, torch.device("cpu"))
        return step_context(runtime, room, inputs, spec, topics=CLASSES, last=False), batch

    return make


def test_the_ratio_is_that_of_the_two_gradients(made: Any) -> None:
    context, batch = made(("average", {"temperature": 3.0, "weight": 2.0}))
    room = context.classroom
    room.student[3].p = 0.0
    scale = measure(context, batch)
    room.train()
    x = context.inputs(batch["pixels"])
    logits = copy.deepcopy(room.student)(x)
    student = copy.deepcopy(room.student)
    logits, said = student(x), torch.stack([m(x).prediction for m in room.mentors])
    far = 2.0 * 9.0 * kl_divergence(logits.unsqueeze(0), said, 3.0).mean(0).mean()
    norms = []
    for loss in (far, nn.functional.cross_entropy(logits, batch["target"])):
        found = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
        norms.append(torch.cat([g.flatten() for g in found]).norm())
    assert scale.ratio == pytest.approx(float(norms[0] / norms[1]), rel=1e-5)
    assert scale.own == scale.unscheduled == scale.ratio
    assert scale.entry() == {"gradient_ratio": round(scale.ratio, 4)}


def test_factors_and_schedules_count(made: Any) -> None:
    plain, half, ramp = (
        measure(*made(("average", options)))
        for options in ({}, {"supervised_weight": 0.5}, {"schedule": {"warmup": {"epochs": 20}}})
    )
    assert half.ratio == pytest.approx(plain.ratio)  # against plain cross-entropy, not the method's own part
    assert half.own == pytest.approx(2 * plain.ratio)
    assert ramp.ratio == pytest.approx(plain.ratio / 20)
    assert ramp.unscheduled == pytest.approx(plain.ratio)
    assert set(ramp.entry()) == {"gradient_ratio", "gradient_ratio_unscheduled"}
    both = measure(*made(("average", {"schedule": {"warmup": {"epochs": 20}}}), "kd"))
    assert both.unscheduled > both.ratio > ramp.ratio
    assert measure(*made("none")) is None
    hints = {"name": "average", "feature_weight": 100.0, "tap": "@stage:-1"}
    assert measure(*made((hints.pop("name"), hints))).ratio > plain.ratio  # its projector is not the student's


def test_it_leaves_no_trace(made: Any, images: Any, tmp_path: Path) -> None:
    views = images.train.ids.new_zeros(len(images.train))
    kinds = []
    for name in ("a", "b"):
        codec, about = bank.Dense((CLASSES,)), {"mentor": name}
        kinds.append(
            {LOGITS: bank.RowStore.open(
                tmp_path / name, about, kind=LOGITS, views=1, samples=len(images.train), codec=codec, write=True
            )}
        )  # fmt: skip
        kinds[-1][LOGITS].write(views[:40], torch.arange(40), torch.randn(40, CLASSES))
    store = bank.FillOnMissCache(kinds, images.train.ids, torch.device("cpu"))
    context, batch = made("classroomkd", store=store)
    room, before = context.classroom, copy.deepcopy(context.learner.state_dict())
    bits, rows = checkpoint.rng_state(torch.device("cpu")), kinds[0][LOGITS].count()
    context.progress.step = 5
    assert measure(context, batch) is not None
    assert all(torch.equal(value, before[name]) for name, value in context.learner.state_dict().items())
    assert torch.equal(checkpoint.rng_state(torch.device("cpu"))["cpu"], bits["cpu"])
    assert (context.progress.step, room.mentors.forwards, room.mentors.answered, store.asked) == (5, 0, 0, [0, 0])
    assert room.mentors.store is store
    assert kinds[0][LOGITS].count() == rows
    assert all(p.grad is None for p in room.parameters())
    assert context.record.steps == 0


def test_only_the_loud_are_told() -> None:
    assert loud(Scale(LOUD + 1, 1.0, LOUD + 1)).startswith("at the start the mentors' gradient is 11 times")
    assert loud(Scale(LOUD, 50.0, 40.0)) == loud(Scale(math.nan, 1.0, 1.0)) == loud(None) == ""
    assert Scale(math.nan, 1.0, 1.0).entry() == {"gradient_ratio_unscheduled": 1.0}


def test_a_run_says_it_once_an_arm_and_a_dry_run_where_mentors_are_trained(tmp_path: Path, capsys: Any) -> None:
    quick = [
        str(ROOT / "recipes" / "smoke.yaml"), "data.options.train=60", "data.options.test=40", "train.epochs=1",
        "student.samples=40", "mentor_train.epochs=1", "workers=1", "threads=1", f"cache={tmp_path / 'cache'}",
        "check_mentors=off", "mentors=[{name: a, model: convnet8}]",
        "methods=[none, average, {name: average, weight: 500, label: shouted}]", "seeds=[0,1]",
    ]  # fmt: skip
    assert main(["run", *quick, "--out", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("times that of the labels alone") == said.count("arm 'shouted': at the start") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    ratios = {(e["method"], e["seed"]): e.get("gradient_ratio") for e in summary["entries"]}
    assert ratios["none", 0] is None
    assert ratios["shouted", 0] > LOUD > ratios["average", 0] > 0
    assert ratios["shouted", 0] == pytest.approx(500 * ratios["average", 0], rel=1e-2)
    assert ratios["shouted", 1] not in (None, ratios["shouted", 0])

    def plan(*more: str) -> dict[str, Any]:
        assert main(["run", *quick, *more, "--dry-run", "--json", "--out", str(tmp_path / "dry")]) == 0
        return {arm["label"]: arm for arm in json.loads(capsys.readouterr().out)["arms"]}

    assert {arm["gradient_ratio"] for arm in plan().values()} == {None}
    found = plan(f"mentors=[{{name: a, model: convnet8, checkpoint: {summary['mentors'][0]['weights']}}}]")
    assert found["none"]["gradient_ratio"] is None
    assert 0 < found["average"]["gradient_ratio"] < LOUD < found["shouted"]["gradient_ratio"]
    assert (found["average"]["loud"], found["shouted"]["loud"][:12]) == ("", "at the start")


def test_the_table_of_a_recipe(tmp_path: Path, capsys: Any) -> None:
    script = load("scales")
    quick = [
        "data.options.train=60", "data.options.test=40", "student.samples=40", "mentor_train.epochs=1", "threads=1",
        f"cache={tmp_path / 'cache'}", "mentors=[{name: a, model: convnet8}]",
        "methods=[none, average, {name: average, schedule: {warmup: {epochs: 20}}, label: ramp}]",
    ]  # fmt: skip
    script.main([str(ROOT / "recipes" / "smoke.yaml"), *quick, "--epochs", "1", "--out", str(tmp_path / "x.json")])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[2] == "| none | – | – |"
    assert [line.count("→") for line in lines[3:]] == [2, 2]
    plain, ramp = json.loads((tmp_path / "x.json").read_text())["rows"][1:]
    assert plain["start"]["ratio"] != plain["after"]["ratio"]
    assert ramp["start"]["unscheduled"] == pytest.approx(plain["start"]["ratio"], rel=1e-4)
    assert ramp["start"]["ratio"] == pytest.approx(plain["start"]["ratio"] / 20, rel=1e-4)
