"""Training sections: what is inherited, what contradicts itself, what has no effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from classroomkd.recipe import MentorTrain, Recipe, make_recipe

Mistakes = Callable[..., list[str]]
BASE: dict[str, Any] = {"data": "puppets", "student": "convnet8", "method": "kd"}


def trainings(train: dict[str, Any], shared: dict[str, Any] | None, own: dict[str, Any] | None) -> MentorTrain:
    mapping = {**BASE, "train": train, "mentor_train": shared, "mentors": [{"model": "vgg8", "train": own}]}
    spec = make_recipe(mapping).mentors[0].train
    assert spec is not None
    return spec


def test_layers_of_training_keys() -> None:
    spec = trainings({"epochs": 9, "lr": 0.5, "clip": 1}, {"lr": 0.3, "epochs": 8}, {"lr": 0.1, "samples": 5})
    assert (spec.epochs, spec.lr, spec.clip, spec.samples, spec.momentum) == (8, 0.1, 1.0, 5, 0.9)
    assert trainings({"epochs": 9}, None, None).epochs == 9
    assert trainings({"epochs": 9}, {"epochs": 20}, {"epochs": 9}).epochs == 9  # said explicitly, so it counts


def test_keys_of_another_schedule_are_not_inherited() -> None:
    spec = trainings({"epochs": 9, "milestones": [3, 6], "gamma": 0.5}, None, {"schedule": "cosine"})
    assert (spec.milestones, spec.gamma) == (None, 0.1)
    spec = trainings({"epochs": 9, "milestones": [3, 6]}, None, {"lr": 0.1})
    assert spec.milestones == (3, 6)


def test_a_mentor_with_a_checkpoint_is_not_trained(tmp_path: Any) -> None:
    (tmp_path / "x.pth").write_bytes(b"")
    recipe = make_recipe({**BASE, "mentors": [{"model": "vgg8", "checkpoint": "x.pth"}, "vgg11"]}, folder=tmp_path)
    assert recipe.mentors[0].train is None
    assert recipe.mentors[0].checkpoint == str(tmp_path / "x.pth")
    assert recipe.mentors[1].train is not None
    assert recipe.mentors[1].name == "vgg11"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "train: {epochs: 5, warmup_epochs: 5}",
            "train.warmup_epochs: the warm-up of 5 epochs must end before the last",
        ),
        ("train: {milestones: [3, 2]}", "train.milestones: milestones [3, 2] must grow; write [2, 3]"),
        ("train: {milestones: [0.5, 3]}", "milestones [0.5, 3] mix fractions of the run (below 1) with epochs"),
        ("train: {milestones: [0]}", "milestones [0] must all be above 0"),
        ("train: {epochs: 8, milestones: [8]}", "milestone 8 is not reached in 8 epochs; lower it, or use fractions"),
        (
            "train: {epochs: 10, warmup_epochs: 6, milestones: [0.5]}",
            "milestone 0.5 lies inside the warm-up of 6 epochs",
        ),
        ("train: {optimizer: adamw}", "train.optimizer: adamw needs its own lr beside it (1e-3 is usual)"),
        ("train: {schedule: cosine, min_lr: 1}", "train.min_lr: min_lr 1 must not be above lr 0.05"),
        (
            "mentors: [{model: vgg8, train: {epochs: 3, milestones: [4]}}]",
            "mentors.0.train.milestones: milestone 4 is not",
        ),
        (
            "mentors: [{model: vgg8, checkpoint: a.yaml, train: {epochs: 3}}]",
            "has both 'checkpoint' and 'train'; keep one",
        ),
        ("device: cpu\ntrain: {precision: fp16}", "fp16 needs a GPU and the recipe says device: cpu; use bf16 or fp32"),
        ("bank: exact\nname: x", "views 'resized_crop' have no end, so not all can be stored"),
        ("devices: 2", "several devices are started from outside: devices: 1 and torchrun --nproc-per-node 2"),
    ],
)
def test_contradictions(mistakes: Mistakes, section: str, message: str) -> None:
    views = ", views: resized_crop" if "bank" in section else ""
    found = mistakes(f"data: {{source: puppets{views}}}\nstudent: convnet8\nmethod: none\n{section}\n")
    assert len(found) == 1, found
    assert message in found[0]


def test_a_contradiction_with_what_is_inherited_names_the_section_that_makes_it(mistakes: Mistakes) -> None:
    text = """\
data: puppets
student: convnet8
method: kd
mentors: [{model: vgg8, train: {epochs: 4}}]
train: {epochs: 10, milestones: [5]}
"""
    (found,) = mistakes(text)
    assert found.startswith("a.yaml:4: mentors.0.train.epochs: milestone 5 is not reached in 4 epochs")


def test_a_machine_without_gpu_refuses_what_needs_one(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    text = "data: puppets\nstudent: convnet8\nmethod: none\n"
    assert "fp16 needs a GPU and this machine has none" in mistakes(text, "train.precision=fp16")[0]
    assert "use device: auto" in mistakes(text, "device=cuda")[0]
    assert "use device: auto" in mistakes(text, "device=mps")[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "there is no device 5; they are counted from 0 to 1" in mistakes(text, "device=cuda:5")[0]


def test_settings_without_effect_are_noted() -> None:
    def noted(**keys: Any) -> list[str]:
        recipe: Recipe = make_recipe({**BASE, "mentors": ["vgg8"], **keys})
        return recipe.notes()

    assert noted() == []
    assert noted(train={"schedule": "cosine", "milestones": [0.5]}) == [
        "train.milestones has no effect: it acts only with schedule: multistep"
    ]
    assert noted(train={"warmup_lr": 0.1}) == ["train.warmup_lr has no effect without warmup_epochs"]
    assert noted(train={"optimizer": "adamw", "lr": 0.1, "nesterov": True}) == [
        "train.nesterov has no effect: it acts only with optimizer: sgd"
    ]
    assert noted(method="none") == ["the mentors have no effect: the only method is 'none'"]
    assert noted(mentors=[], method="none", mentor_train={"epochs": 3}) == [
        "mentor_train has no effect: no mentor is trained by the run"
    ]
