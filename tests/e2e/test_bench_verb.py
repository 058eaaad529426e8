"""``classroomkd bench``: the parts of a step, and that nothing is left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classroomkd import models
from classroomkd.cli.app import main
from classroomkd.recipe import load_recipe
from classroomkd.run import bench as engine_bench
from classroomkd.run.bank_choice import plan_bank
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.train.stopwatch import Clock


def bench(smoke: str, quick: list[str], *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bench", smoke, *quick, *words, "--rounds", "2", "--json", "--debug"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


def test_parts_mentors_and_savings(smoke: str, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(smoke, quick, "methods=[none,classroomkd]", "seeds=[0,1]", "train.epochs=40", capsys=capsys)
    (arm,) = made["arms"]
    assert set(arm["parts"]) == set(engine_bench.PARTS)
    assert {m["name"] for m in arm["mentors"]} == {"broad", "slim", "arms"}
    assert arm["dearest"] == max(arm["mentors"], key=lambda m: m["ms"])["name"]
    assert all(m["ms"] > 0 and 0 < m["share"] < 1 for m in arm["mentors"])
    reading = arm["parts"]["bank read"]
    assert reading["bank"] > 0 == reading["online"] == reading["alone"]
    # The parts and the mentors are all of the step, counted once; they are medians of their own, so not to the digit.
    parts = sum(values["online"] for values in arm["parts"].values()) + sum(m["ms"] for m in arm["mentors"])
    assert parts == pytest.approx(arm["step_ms"]["online"], rel=0.35)
    bank = made["bank"]
    assert (bank["epochs"], bank["trainings"]) == (40, 2)
    assert bank["kinds"]["off"]["one_training"] == pytest.approx(arm["x_floor"], abs=0.01)
    share = 8 / 80
    expected = arm["x_floor_bank"] + share * (arm["x_floor"] - arm["x_floor_bank"])
    assert bank["kinds"]["views=8"]["all_trainings"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "words",
    [
        ("method=mmkd", "train.optimizer=sgd"),
        ("method=fitnet",),
        ("method=rkd", "bank=exact"),
        ("bank=exact,top=3", "methods=[kd,average]"),
        ("method=none",),
        ("data.views=resized_crop", "train.channels_last=auto", "train.clip=1", "train.accumulate=2"),
    ],
    ids=lambda words: words[0],
)
def test_every_kind_of_arm(smoke: str, quick: list[str], words: tuple[str], capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(smoke, quick, *words, capsys=capsys)
    for arm in made["arms"]:
        asked = bool(arm["mentors"])
        assert asked == (arm["label"] != "none")
        assert (arm["x_floor"] is None) == (not asked)
        assert not asked or arm["parts"]["bank read"]["bank"] > 0
    assert (made["bank"] is None) == (words[0] == "method=none")


def test_quartiles_lie_around_every_median(smoke: str, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (arm,) = bench(smoke, quick, "method=average", capsys=capsys)["arms"]
    spread, found = arm["quartiles"], []
    found += [(arm[name], spread[name]) for name in ("x_floor", "x_floor_bank", "again")]
    found += [(mentor["ms"], spread["mentors"][mentor["name"]]) for mentor in arm["mentors"]]
    for medians, around in (
        (arm["step_ms"], spread["step_ms"]),
        *((arm["parts"][k], v) for k, v in spread["parts"].items()),
    ):
        assert set(medians) == set(around) == {"alone", "online", "bank"}
        found += [(medians[column], around[column]) for column in around]
    assert all(q1 <= median <= q3 for median, (q1, q3) in found)
    assert all(q1 < median < q3 for median, (q1, q3) in found[:3])  # two rounds: a quarter of the way in from each


def test_an_update_is_shared_by_the_batches_it_is_for() -> None:
    clock, steps = Clock(torch.device("cpu")), list[str]()

    def step(column: str) -> None:
        steps.append(column)
        clock.taken = {"update": clock.taken.get("update", 0.0) + (6.0 if steps.count(column) % 3 == 0 else 0.0)}

    taken = engine_bench._rounds(clock, {"alone": 3, "online": 6}, 2, step)
    assert taken == {"alone": [{"update": 2.0}] * 2, "online": [{"update": 2.0}] * 2}
    assert (steps.count("alone"), steps.count("online")) == (9, 18)


def test_no_clock_is_inside_what_is_compiled(
    smoke: str, quick: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(module: torch.nn.Module) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            assert "forward" not in vars(module)
            return module(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr("classroomkd.run.checks.check_compiler", lambda device: None)
    words = ("method=average", "train.compile=true", "mentor_train.compile=false")
    (arm,) = bench(smoke, quick, *words, capsys=capsys)["arms"]
    assert all(ms > 0 for ms in arm["parts"]["student forward"].values())


def test_table_for_people(smoke: str, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", smoke, *quick, "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    for words in ("mentor slim", "student forward", "with the mentors online", "views=8", "CPU time"):
        assert words in said
    assert re.search(r"relative cost: \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] with the mentors online", said)


def test_the_users_own_networks_come_back_as_they_were(smoke: str, quick: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(smoke, quick)
    student, broad = (models.create(name, 10) for name in ("convnet8", "convnet16"))
    networks = Networks(open_context(recipe, tmp_path / "out", given={"student": student, "broad": broad}))
    bank_plan = plan_bank(networks)
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in (student, broad)]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    engine_bench.measure(networks, bank_plan, rounds=2)
    assert torch.equal(torch.rand(4), expected)
    for network, state in zip((student, broad), before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
        assert all(p.grad is None for p in network.parameters())
    assert not (tmp_path / "out").exists()


def test_time_inside_another_part_counts_once() -> None:
    clock, now = Clock(torch.device("cpu")), [0.0]
    clock._now = lambda: now[0]

    class Thing:
        def work(self) -> None:
            now[0] += 2

    thing = Thing()
    with clock.watching("inner", thing, "work"), clock("outer"):
        now[0] += 1
        thing.work()
        thing.work()
        now[0] += 3
    assert clock.taken == {"outer": 4.0, "inner": 4.0}
    assert "work" not in vars(thing)
