"""What ``bank: auto`` counts: answers, and the bytes of what the methods that share the bank read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classroomkd.recipe import load_recipe
from classroomkd.run import bank_choice
from classroomkd.run.opening import start
from classroomkd.run.setup import Setup

RECIPE = """
data: {source: puppets, options: {train: 60, test: 20, image_size: 32}}
student: convnet8
mentors: [convnet16, dwnet16]
train: {epochs: 3, batch_size: 20}
workers: 1
threads: 1
"""


def setup(tmp_path: Path, *words: str) -> Setup:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    return start(load_recipe(str(recipe), list(words)), tmp_path / "run")


def test_arms_that_read_maps_do_not_count(tmp_path: Path) -> None:
    alone = setup(tmp_path, "methods=[kd,average]").bank
    mixed = setup(tmp_path, "methods=[kd,fitnet,average,at]")
    assert mixed.bank.answers == alone.answers
    assert (mixed.bank.trainings, str(mixed.bank.spec)) == (2, "exact")
    assert "feature maps" in mixed.bank.why
    assert "feature maps" not in alone.why
    assert mixed.taps == {}
    said = setup(tmp_path, "methods=[kd,fitnet]", "bank=views=2")  # asked for, maps are stored
    assert set(said.taps.values()) == {"map"}
    assert said.bank.trainings == 2


def test_pooled_features_count_among_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = setup(tmp_path, "methods=[kd,average]")
    vectors = setup(tmp_path, "methods=[kd,rkd]")
    before = torch.random.get_rng_state()
    widths = {"convnet16": 64, "dwnet16": 64}
    found = vectors.widths({"@penultimate": "pooled"})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found == sum(widths.values())
    samples, views = len(logits.student_part), 162
    monkeypatch.setattr(bank_choice, "MOST_BYTES", 2 * samples * views * 2 * 10)
    assert str(logits.bank.spec) == "exact"
    assert str(vectors.bank.spec) != "exact"
    for room, kind in ((2 * samples * views * (2 * 10 + found), "exact"), (-1, "off")):
        monkeypatch.setattr(bank_choice, "MOST_BYTES", max(room, 0))
        assert str(setup(tmp_path, "methods=[kd,rkd]").bank.spec) == kind


def test_a_tap_that_a_mentor_lacks_is_left_to_the_check_of_the_arms(tmp_path: Path) -> None:
    assert setup(tmp_path, "methods=[{name: rkd, tap: nowhere}]").bank.trainings == 1
