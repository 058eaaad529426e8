"""A training that diverges: what is said, what is kept, and the command that starts again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.run.diverged import in_python, lower_rate

DATA = {"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}}


def started_again(said: str) -> list[str]:
    """The words of the command that the last line gives."""
    line = said.strip().splitlines()[-1]
    assert line.startswith("to start again at a lower rate, with what the cache has: classroomkd run "), said
    return shlex.split(line.partition(": ")[2])[1:]


def weights_of(cache: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in cache.glob("mentors/*/mentor.safetensors")}


def test_the_command_starts_again_without_training_mentors(
    tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "run"
    words = ["run", smoke, *quick[:-1], f"cache={cache}", "train.lr=0.1", "mentor_train.lr=0.1", "bank=off"]
    words += ["methods=[none,{name: average, weight: 1e40}]", "--out", str(out), "--quiet"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "a lower train.lr or train.clip=5" in said
    assert "fp32" not in said  # it is the default
    assert "--resume" not in said
    again = started_again(said)
    assert "train.lr=0.02" in again
    assert "train.lr=0.1" not in again
    assert "mentor_train.lr=0.1" in again
    made = weights_of(cache)
    assert len(made) == 3
    assert main([*again, "methods=[none]", "--quiet"]) == 0
    assert weights_of(cache) == made
    summary = json.loads((Path(again[again.index("--out") + 1]) / "summary.json").read_text())
    assert summary["train"]["lr"] == 0.02
    assert (out / "none" / "seed0" / "student.safetensors").exists()


def test_resume_says_the_same_and_trains_nothing(
    tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", smoke, *quick, "methods=[none,{name: average, weight: 1e40}]", "--out", str(tmp_path / "run")]
    assert main([*words, "--quiet"]) == 1
    first = started_again(capsys.readouterr().err)
    from classroomkd.train.loop import Training

    monkeypatch.setattr(Training, "train", lambda self: pytest.fail("it is trained again"))
    assert main([*words, "--quiet", "--resume"]) == 1
    said = capsys.readouterr().err
    assert "in an earlier attempt; going on would repeat it" in said
    assert "--resume" not in said
    assert started_again(said) == first
    monkeypatch.undo()
    next((tmp_path / "run").glob("*/seed0/diverged.json")).unlink()
    assert main([*words, "--quiet", "--resume"]) == 1  # tried again
    assert "earlier attempt" not in capsys.readouterr().err


def test_a_mentor_has_its_own_key(
    tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", smoke, *quick, "mentors.slim.train.lr=1e30", "mentors.slim.train.log_every=1"]
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "a lower mentors.slim.train.lr or mentors.slim.train.clip=5" in said
    assert "mentors.slim.train.lr=2e+29" in started_again(said)
    assert not any(word.startswith("train.lr") for word in started_again(said))


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))


def test_python_is_told_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"start again .*distill\(…, lr=0\.01, out='.*run-lr0\.01'\)") as told:
        ck.distill(
            net(0), [net(1)], DATA, {"name": "kd", "weight": 1e40}, epochs=1, out=tmp_path / "run", device="cpu",
            threads=1, check_mentors="off", precision="bf16",
        )  # fmt: skip
    assert "or train.precision=fp32" in str(told.value)


@pytest.mark.parametrize(
    ("train", "mentor_train", "expected"),
    [
        ({"lr": 0.05}, None, {"train.lr": 0.01, "mentor_train.lr": 0.05}),
        ({"lr": 0.05}, {"lr": 0.1}, {"train.lr": 0.01}),
        (
            {"lr": 0.01, "warmup_epochs": 1, "warmup_lr": 0.05, "epochs": 3}, {"warmup_lr": 0.05},
            {"train.lr": 0.002, "train.warmup_lr": 0.01, "mentor_train.lr": 0.01, "mentor_train.warmup_lr": 0.05},
        ),
    ],
)  # fmt: skip
def test_other_trainings_keep_their_rate(train: Any, mentor_train: Any, expected: Any) -> None:
    content = {"data": DATA, "student": "resnet8", "mentors": ["resnet20"], "method": "kd", "train": train}
    recipe = make_recipe({**content, **({"mentor_train": mentor_train} if mentor_train else {})}, name="x")
    assert lower_rate(recipe, None, trained=True) == pytest.approx(expected)
    assert in_python({"train.lr": 0.01, "mentor_train.lr": 0.05}, Path("b")) == (
        "distill(…, lr=0.01, mentor_train={'lr': 0.05}, out='b')"
    )
    assert next(iter(lower_rate(recipe, 0, trained=True))) == "mentors.resnet20.train.lr"
    assert {key for key in lower_rate(recipe, None, trained=False) if not key.startswith("train.")} == set()
