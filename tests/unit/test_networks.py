"""A run's networks: each is built once, and checks and dry runs leave no trace in what is trained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import models
from classroomkd.classroom import Mentor
from classroomkd.recipe import load_recipe
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.run.session import Session
from classroomkd.taps.taps import TapReader, remove_readers
from classroomkd.train import optimize

RECIPE = """
data: {source: puppets, options: {train: 60, test: 20, image_size: 32}}
student: convnet4
mentors: [convnet8, {name: slim, model: dwnet16}, {name: late, model: convnet16, taught_by: convnet8}]
methods: [none, average, fitnet]
train: {epochs: 1, batch_size: 30, channels_last: false}
mentor_train: {epochs: 1}
check_mentors: "off"
seeds: [0, 1]
workers: 1
threads: 1
device: cpu
"""


def recipe(folder: Path, *words: str) -> Any:
    (folder / "recipe.yaml").write_text(RECIPE)
    return load_recipe(str(folder / "recipe.yaml"), list(words))


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    return Networks(open_context(recipe(tmp_path), tmp_path / "run"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each network was built, and how often one was folded."""
    counted = Counter[str]()
    resolve, fold = models.resolve, optimize.fold

    def building(spec: str, *args: Any, **options: Any) -> nn.Module:
        counted[spec] += 1
        return resolve(spec, *args, **options)

    def folding(*args: Any) -> Any:
        counted["fold"] += 1
        return fold(*args)

    monkeypatch.setattr(models, "resolve", building)
    monkeypatch.setattr(optimize, "fold", folding)
    return counted


@pytest.mark.parametrize("bank", ["off", pytest.param("auto", marks=pytest.mark.slow), "views=2"])
def test_each_mentor_is_built_and_folded_once(tmp_path: Path, calls: Counter[str], bank: str) -> None:
    """Three arms with two seeds; one more student is built, for the dry runs of all."""
    methods = "methods=[none,average,classroomkd]"
    outcome = Session(recipe(tmp_path, methods, f"bank={bank}"), tmp_path / "run").run()
    assert len(outcome.summary["entries"]) == 6
    assert calls == {"convnet4": 6 + 1, "convnet8": 1, "dwnet16": 1, "convnet16": 1, "fold": 3}


def test_a_plan_builds_what_a_check_has_built(tmp_path: Path, calls: Counter[str]) -> None:
    Session(recipe(tmp_path), tmp_path / "run").plan()
    assert calls == {"convnet4": 1, "convnet8": 1, "dwnet16": 1, "convnet16": 1, "fold": 6}  # with taps, and without


def test_what_is_trained_is_as_it_was_built(networks: Networks) -> None:
    fresh = state(networks.mentor("slim"))
    wrapped = networks.blank_mentor(networks.context.mentor("slim"))
    module = networks.mentor("slim").train()
    module(torch.randn(4, 3, 32, 32))  # running statistics
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    assert not any(p.requires_grad for p in wrapped.parameters())
    trained = networks.untrained("slim")
    assert trained is module
    assert all(torch.equal(value, fresh[name]) for name, value in trained.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())
    assert all(layer.training for layer in trained.modules())
    again = networks.untrained("slim")  # its first weights are kept for one training: it is built again
    assert again is not trained
    assert all(torch.equal(value, fresh[name]) for name, value in again.state_dict().items())


def test_equal_seeds_give_equal_students_and_generators_stay(networks: Networks) -> None:
    before = torch.random.get_rng_state()
    first, second, other = networks.student(3), networks.student(3), networks.student(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first is not second
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert networks.blank_student() is networks.blank_student()


def test_a_file_is_read_once_and_makes_another_fast_copy(networks: Networks, tmp_path: Path) -> None:
    spec = networks.context.mentor("slim")
    before = networks.optimized(networks.blank_mentor(spec))
    assert networks.optimized(networks.blank_mentor(spec)) is before
    other = models.create("dwnet16", 10)
    file = tmp_path / "other.safetensors"
    models.save_checkpoint(other, file, {})
    module = networks.with_weights("slim", str(file))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    assert networks.optimized(networks.wrap(spec, module)) is not before
    file.unlink()
    assert networks.with_weights("slim", str(file)) is module


def test_readers_of_the_one_before_are_taken_off(networks: Networks) -> None:
    module = networks.mentor("slim")
    place = next(name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d))
    own: list[int] = []
    module.get_submodule(place).register_forward_hook(lambda *_: own.append(1))
    reader = TapReader(module, [place])
    assert len(module.get_submodule(place)._forward_hooks) == 2
    networks.mentor("slim")
    assert len(module.get_submodule(place)._forward_hooks) == 1
    Mentor(module)(torch.zeros(1, 3, 32, 32))
    assert own == [1]
    remove_readers(reader)  # nothing is left to take off


def test_networks_handed_over_are_used_and_students_copied(tmp_path: Path) -> None:
    student, slim = models.create("convnet4", 10), models.create("dwnet16", 10)
    context = open_context(recipe(tmp_path), tmp_path / "run", given={"student": student, "slim": slim})
    handed = Networks(context)
    assert handed.mentor("slim") is slim
    assert handed.has_weights(context.mentor("slim"))
    assert handed.with_weights("slim", "") is slim
    assert handed.student(0) is not student
    assert all(torch.equal(a, b) for a, b in zip(handed.student(0).parameters(), student.parameters(), strict=True))


def test_a_context_cannot_be_changed(networks: Networks) -> None:
    with pytest.raises(AttributeError):
        networks.context.recipe = None  # type: ignore[misc,assignment]
