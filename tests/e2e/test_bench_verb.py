"""``classroomkd bench``: the parts of a step, and that nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from classroomkd.cli.app import main
from classroomkd.engine import bench as engine_bench
from classroomkd.engine.opening import start
from classroomkd.engine.stopwatch import Clock
from classroomkd.recipe import load_recipe


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
        ("data.views=resized_crop", "train.channels_last=auto", "train.clip=1"),
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


def test_table_for_people(smoke: str, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", smoke, *quick, "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    for words in ("mentor slim", "student forward", "x floor with the mentors online", "views=8", "CPU time"):
        assert words in said


def test_the_users_own_networks_come_back_as_they_were(smoke: str, quick: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(smoke, quick)
    setup = start(recipe, tmp_path / "out")
    student, broad = (setup.build(name, "x", seed=1) for name in ("convnet8", "convnet16"))
    setup.given = {"student": student, "broad": broad}
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in (student, broad)]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    engine_bench.measure(setup, rounds=2)
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
