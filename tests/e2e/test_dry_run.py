"""What a dry run says of mentors, time and classes, and that it does not take long."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.run import session
from classroomkd.train import step_cost


def plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--dry-run", "--json", "--debug"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


@pytest.fixture
def words(smoke: str, quick: list[str], tmp_path: Path) -> list[str]:
    return ["run", smoke, *quick[:-1], f"cache={tmp_path / 'cache'}", "--out", str(tmp_path / "run")]


def test_every_mentor_is_described_and_scored_where_it_can_be(
    words: list[str],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = json.loads((finished / "summary.json").read_text())["mentors"]
    broad = next(mentor for mentor in trained if mentor["name"] == "broad")
    torch.manual_seed(0)
    save_file(ck.models.create("convnet8", 10).state_dict(), tmp_path / "noise.safetensors")
    mentors = [
        f"{{name: good, model: convnet16, checkpoint: {broad['weights']}, mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}}",
        f"{{name: noise, model: convnet8, checkpoint: {tmp_path / 'noise.safetensors'}, size: 24}}",
        "{name: new, model: convnet4}",
    ]
    words += [f"mentors=[{', '.join(mentors)}]", "method=average", "train.ema=0.9999"]
    made = plan(words, capsys)
    good, noise, new = made["looks"].values()
    assert (good["how"], noise["how"], new["how"]) == ("loaded", "loaded", "trained")
    assert (good["normalisation"], noise["normalisation"]) == ("recipe", "data")
    assert (good["size"], noise["size"]) == ([32, 32], [24, 24])
    assert good["val_samples"] == good["val_of"] == made["data"]["val"]
    assert good["val"] is not None
    assert new["val"] is None
    assert noise["near_chance"]
    assert not (tmp_path / "cache" / "mentors").exists()
    assert not (tmp_path / "run").exists()
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "│ noise.safeten" in said  # not the whole path, which a column would break
    assert "noise: no better than chance on validation" in said
    assert "classes: [...]" in said
    assert "not trained yet" in said
    assert "stand, t_pose, arms_up" in said
    assert "and 2 more" in said
    assert "note: train.ema=0.9999 averages over about 10,000 steps" in said
    assert "time      about" in said
    assert "an estimate" in said
    seconds = made["seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds[key] for key in ("mentors", "students", "scoring")), abs=0.05)


def test_what_the_cache_has_is_not_trained_again(
    words: list[str], smoke: str, quick: list[str], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished.exists()  # its mentors are in the session's cache
    there = plan(["run", smoke, *quick], capsys)
    anew = plan(words, capsys)
    assert [look["cached"] for look in there["looks"].values()] == [True] * 3
    assert [look["cached"] for look in anew["looks"].values()] == [False] * 3


def test_more_epochs_take_longer(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (plan([*words, f"train.epochs={n}", "bank=off"], capsys)["seconds"]["students"] for n in (2, 200))
    assert long > 20 * short


def test_it_is_bounded_and_says_what_it_left_out(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LEAST", 0.0)
    monkeypatch.setattr("classroomkd.cli.run.HALF_A_MINUTE", 0.0)
    real, sizes = step_cost._pass, list[int]()

    def slow(context: Any, method: Any, batch: Any) -> None:
        sizes.append(len(batch["ids"]))
        real(context, method, batch)

    monkeypatch.setattr(step_cost, "_pass", slow)
    words += ["methods=[average,classroomkd,none]"]
    made = plan(words, capsys)
    assert [arm["measured"] for arm in made["arms"]] == [True, False, False]
    assert "a step of 'classroomkd'" in made["not_measured"]
    assert "mentor 'slim'" in made["not_measured"]
    madds = [network["multiply_adds"] for network in (made["student"], *made["mentors"].values())]
    assert made["arms"][1]["x_floor"] == pytest.approx(1 + sum(madds[1:]) / (3 * madds[0]), abs=0.01)
    assert made["arms"][2]["x_floor"] == 1.0
    assert made["seconds"]["total"] is None
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "--full measures it all" in said
    assert "the mentors were not measured" in said
    full = plan([*words, "--full"], capsys)
    assert full["not_measured"] == []
    assert all(arm["measured"] for arm in full["arms"])


def test_slow_steps_are_measured_on_some_samples(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student whose step takes seconds: a few samples say what the batch takes."""
    real = step_cost._pass

    def slow(context: Any, method: Any, batch: Any) -> None:
        end = time.process_time() + 0.004 * len(batch["ids"])
        while time.process_time() < end:
            pass
        real(context, method, batch)

    monkeypatch.setattr(step_cost, "_pass", slow)
    monkeypatch.setattr(session, "LEAST", 2.0)
    monkeypatch.setattr("classroomkd.cli.run.HALF_A_MINUTE", 0.0)
    began = time.process_time()
    made = plan([*words, "method=average", "train.batch_size=60"], capsys)
    assert time.process_time() - began < 8
    assert made["arms"][0]["floor_ms"] > 0.8 * 240


def test_what_the_task_needs_late_is_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from classroomkd.errors import UserError
    from classroomkd.tasks.row import TaskRow

    def broken(self: TaskRow) -> Any:
        raise UserError("task 'classification' cannot be loaded")

    monkeypatch.setattr(TaskRow, "open_files", broken)
    assert main([*words, "--dry-run"]) == 2
    assert "cannot be loaded" in capsys.readouterr().err
