"""The whole job from Python, with a user's own networks and data."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from colours import Colours
from torch import nn

import classroomkd as ck
from classroomkd.errors import UserError


def net(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)
    )


def test_distill_own_modules_on_an_own_dataset(tmp_path: Path) -> None:
    student, mentor = net(4, 0), net(8, 1)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    run = ck.distill(
        student, {"big": mentor}, (Colours(90), Colours(30)), {"name": "average", "weight": 0.1},
        out=tmp_path / "run", epochs=6, batch_size=16, lr=0.1, device="cpu", check_mentors="off",
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    assert run.accuracy[0] > 0.5
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    taught = run.student()
    assert not taught.training
    assert any(not torch.equal(v, before[k]) for k, v in taught.state_dict().items())
    assert run.report().exists()
    assert run.export(tmp_path / "out.safetensors").exists()
    with pytest.raises(UserError, match="--resume"):
        ck.distill(student, [mentor], (Colours(90), Colours(30)), out=tmp_path / "run", epochs=1)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_any_precision(tmp_path: Path, precision: torch.dtype) -> None:
    student, mentor = net(4, 0).to(precision), net(8, 1).to(precision)
    found = []
    for label, networks in (("own", (student, mentor)), ("single", (copy.deepcopy(student), copy.deepcopy(mentor)))):
        small, big = networks if label == "own" else (network.float() for network in networks)
        run = ck.distill(
            small, {"big": big}, (Colours(30), Colours(12)), "average", out=tmp_path / label, epochs=1, batch_size=8,
            device="cpu", check_mentors="off", cache=str(tmp_path / f"cache-{label}"),
        )  # fmt: skip
        found.append(run.student().state_dict())
    assert {p.dtype for p in (*student.parameters(), *mentor.parameters())} == {precision}  # the caller's stay
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_distill_by_names_and_a_class_count_that_differs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answers 3 classes, the data 'puppets' has 10"):
        ck.distill(
            "convnet4",
            [net(4, 0)],
            {"source": "puppets", "options": {"train": 60, "test": 20}},
            out=tmp_path / "run",
            epochs=1,
        )


def test_a_mentor_brings_its_own_preprocessing(tmp_path: Path) -> None:
    big = ck.Mentor(net(8, 1), "big", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=16)
    run = ck.distill(
        {"model": "convnet4", "samples": 60}, [big], (Colours(90), Colours(30)), methods=["none", "average"],
        out=tmp_path / "run", epochs=1, lr=0.01, device="cpu", check_mentors="off", cache=str(tmp_path / "cache"),
    )  # fmt: skip
    assert [e["method"] for e in run.summary["entries"]] == ["none", "average"]
    assert run.summary["mentors"][0]["size"] == [16, 16]
    assert run.summary["mentors"][0]["mean"] == [0.5, 0.5, 0.5]
    with pytest.raises(UserError, match="by name"):
        ck.distill("convnet4", [big], (Colours(90), Colours(30)), ck.methods.create("average"), out=tmp_path / "other")


def test_what_cannot_be_a_lesson_says_so() -> None:
    with pytest.raises(UserError, match=r"models\.create"):
        ck.Classroom("resnet8", ["resnet14"])  # type: ignore[arg-type, list-item]
    room = ck.Classroom(net(4, 0), [net(8, 1)])
    images = torch.zeros(4, 3, 8, 8)
    with pytest.raises(UserError, match="labels go from 0 to 3, the student knows classes 0 to 2"):
        room(images, torch.arange(4))
    with pytest.raises(UserError, match="4 images came with 3 labels"):
        room(images, torch.zeros(3, dtype=torch.int64))
