"""``train.precision: auto``: the hardware, the probe, and what a run that is resumed keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classroomkd.recipe import Recipe, make_recipe
from classroomkd.run import opening

RECIPE = {
    "data": {"source": "puppets", "options": {"train": 40, "test": 20, "image_size": 32}},
    "student": "convnet4",
    "mentors": ["convnet4", {"name": "own", "model": "convnet4", "train": {"epochs": 1}}],
    "method": "average",
    "train": {"epochs": 1, "precision": "auto"},
    "device": "cpu",
}


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe(RECIPE)


def hardware(monkeypatch: pytest.MonkeyPatch, has: bool, faster: str = "fp32") -> list[str]:
    """Pretend: bf16 hardware or none, and what the probe finds; the list counts its calls."""
    asked: list[str] = []

    def probe(*_: Any, **__: Any) -> dict[str, str]:
        asked.append("probe")
        return {"precision": faster}

    monkeypatch.setattr(opening, "has_bf16", lambda device: has)
    monkeypatch.setattr(opening, "choose_layout", probe)
    return asked


@pytest.mark.parametrize(
    ("has", "faster", "found", "probes"),
    [(False, "bf16", "fp32", 0), (True, "fp32", "fp32", 1), (True, "bf16", "bf16", 1)],
)
def test_hardware_then_probe(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool, faster: str, found: str, probes: int
) -> None:
    asked = hardware(monkeypatch, has, faster)
    context = opening.open_context(recipe, tmp_path / "out")
    assert (context.runtime.precision, len(asked)) == (found, probes)
    trained = [context.mentor_train(i).precision for i in range(2)]
    assert [context.recipe.train.precision, *trained] == [found] * 3
    assert recipe.train.precision == "auto"  # what the run folder keeps


def test_a_resumed_run_keeps_its_precision(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hardware(monkeypatch, False)
    (tmp_path / "environment.json").write_text(json.dumps({"precision": "bf16"}))
    assert opening.open_context(recipe, tmp_path).runtime.precision == "bf16"
    (tmp_path / "environment.json").write_text('{"precis')
    assert opening.open_context(recipe, tmp_path).runtime.precision == "fp32"
    assert not asked


def test_ranks_do_not_probe(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hardware(monkeypatch, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert opening.known_precision(recipe, tmp_path) == "bf16"
    assert not asked
