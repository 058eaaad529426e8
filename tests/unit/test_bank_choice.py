"""What ``bank: auto`` counts: answers, and the bytes of what the methods that share the bank read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classroomkd.recipe import load_recipe
from classroomkd.run import bank_choice
from classroomkd.run.bank_choice import BankPlan, activation_size, plan_bank
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context

RECIPE = """
data: {source: puppets, options: {train: 60, test: 20, image_size: 32}}
student: convnet8
mentors: [convnet16, dwnet16]
train: {epochs: 3, batch_size: 20}
workers: 1
threads: 1
"""


def opened(tmp_path: Path, *words: str) -> Networks:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    return Networks(open_context(load_recipe(str(recipe), list(words)), tmp_path / "run"))


def planned(tmp_path: Path, *words: str) -> BankPlan:
    return plan_bank(opened(tmp_path, *words))


def test_arms_that_read_maps_do_not_count(tmp_path: Path) -> None:
    alone = planned(tmp_path, "methods=[kd,average]").choice
    mixed = planned(tmp_path, "methods=[kd,fitnet,average,at]")
    assert mixed.choice.answers == alone.answers
    assert (mixed.choice.trainings, str(mixed.choice.spec)) == (2, "exact")
    assert "feature maps" in mixed.choice.why
    assert "feature maps" not in alone.why
    assert mixed.taps == {}
    said = planned(tmp_path, "methods=[kd,fitnet]", "bank=views=2")  # asked for, maps are stored
    assert set(said.taps.values()) == {"map"}
    assert said.choice.trainings == 2


def test_pooled_features_count_among_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = opened(tmp_path, "methods=[kd,average]")
    vectors = opened(tmp_path, "methods=[kd,rkd]")
    before = torch.random.get_rng_state()
    widths = {"convnet16": 64, "dwnet16": 64}
    found = activation_size(vectors, {"@penultimate": "pooled"})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found == sum(widths.values())
    samples, views = len(logits.context.student_part), 162
    monkeypatch.setattr(bank_choice, "MOST_BYTES", 2 * samples * views * 2 * 10)
    assert str(plan_bank(logits).choice.spec) == "exact"
    assert str(plan_bank(vectors).choice.spec) != "exact"
    for room, kind in ((2 * samples * views * (2 * 10 + found), "exact"), (-1, "off")):
        monkeypatch.setattr(bank_choice, "MOST_BYTES", max(room, 0))
        assert str(planned(tmp_path, "methods=[kd,rkd]").choice.spec) == kind


def test_a_tap_that_a_mentor_lacks_is_left_to_the_check_of_the_arms(tmp_path: Path) -> None:
    assert planned(tmp_path, "methods=[{name: rkd, tap: nowhere}]").choice.trainings == 1
