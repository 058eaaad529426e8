"""What stages draw and take together, and methods that teach several networks each by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from classroomkd import methods, tasks
from classroomkd.classroom import Classroom
from classroomkd.classroom.trainees import who_gave
from classroomkd.methods.pieces.apart import Apart, refuse
from classroomkd.recipe.arms import Arm, Stage
from classroomkd.run.stages import added_up, draws_of

PRE = Stage("pre", ("student",), 2, "fresh")
LAST = Stage("end", ("student", "b"), 1, "pre", (PRE,), last=True)


def arm(stage: Stage | None) -> Arm:
    return Arm("a", "a", (), stage=stage)


def test_the_first_stage_draws_what_a_plain_arm_draws_and_later_ones_something_else() -> None:
    third = replace(LAST, name="more", earlier=(PRE, LAST))
    assert draws_of(arm(None), 5) == draws_of(arm(PRE), 5) == 5
    seeds = [draws_of(arm(stage), seed) for stage in (PRE, LAST, third) for seed in (0, 1)]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_steps_and_seconds_are_sums_and_a_step_costs_the_mean() -> None:
    first = {"taught": "none", "steps": 30, "seconds": 3.0, "step_ms": 2.0, "floor_ms": 9.0, "test_last": 0.5}
    last = {"taught": "dml", "steps": 10, "seconds": 4.0, "step_ms": 6.0, "floor_ms": 2.0, "cost_ratio": 3.0}
    found = added_up(arm(LAST), [first], last)
    assert (found["steps"], found["seconds"], found["step_ms"]) == (40, 7.0, 3.0)
    assert found["cost_ratio"] == 1.5  # over a step of the student alone, which is the last stage's
    assert [(row["name"], row["method"], row["folder"]) for row in found["stages"]] == [
        ("pre", "none", "stages/pre"), ("end", "dml", ""),
    ]  # fmt: skip
    assert found["stages"][0]["test_last"] == 0.5
    alone = added_up(arm(replace(PRE, last=True)), [], {**last, "cost_ratio": 7.0})
    assert (alone["steps"], alone["step_ms"], alone["cost_ratio"]) == (10, 6.0, 7.0)  # of one stage as it was


@pytest.mark.parametrize("name", ["none", "kd"])
def test_each_of_several_networks_is_taught_as_if_it_were_alone(name: str) -> None:
    def net(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Linear(6, 4).double()

    x, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    task = tasks.create("classification")

    def room(student: int, **peers: torch.nn.Module) -> Classroom:
        method = methods.compose([(name, {})], peers=len(peers))
        mentors = [net(9)] if name == "kd" else []
        return Classroom(net(student), mentors, method, task=task, peers=peers)

    both = room(0, b=net(1))
    lesson = both(x, y)
    lesson.loss.backward()
    total = 0.0
    for place, network in enumerate((both.student, both.peers.networks["b"])):
        one = room(place)
        alone = one(x, y)
        alone.loss.backward()
        total += float(alone.loss.detach())
        for mine, own in zip(network.parameters(), one.student.parameters(), strict=True):
            assert mine.grad is not None
            assert torch.equal(mine.grad, own.grad)
    assert float(lesson.loss.detach()) == pytest.approx(total)
    assert isinstance(both.method, Apart)
    assert lesson.outcome is not None
    told = who_gave(lesson.outcome, both.mentors.names, ["b"])
    said = {(who, "Linear"): terms for who, terms in (("student", "distilled"), ("b", "b.distilled"))}
    assert set(told) == (set(said) if name == "kd" else set())
    for pair, term in said.items() if name == "kd" else ():
        torch.testing.assert_close(told[pair], 0.9 * lesson.terms[term].detach())


def test_what_reads_features_or_learns_something_cannot_teach_several() -> None:
    reasons = {name: refuse(methods.create(name)) for name in ("none", "kd", "average", "fitnet", "mmkd")}
    assert [name for name, why in reasons.items() if why is None] == ["none", "kd", "average"]
