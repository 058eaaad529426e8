"""What makes a run faster is switched on where the recipe says so."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import models
from classroomkd.classroom import Classroom
from classroomkd.cli import app
from classroomkd.recipe import load_recipe
from classroomkd.run import context
from classroomkd.run.bank_choice import plan_bank
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.run.students import teach_student
from classroomkd.train import allocator, runtime
from classroomkd.train.loop import Training
from classroomkd.train.optimize import FastMentor
from classroomkd.train.runtime import Runtime

RECIPE = """
data: {source: puppets, options: {train: 60, test: 20, image_size: 32}}
student: convnet8
mentors: [convnet16]
method: none
train: {epochs: 1, batch_size: 30}
workers: 1
threads: 1
"""


def opened(tmp_path: Path, *words: str) -> Networks:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    return Networks(open_context(load_recipe(str(recipe), list(words)), tmp_path / "run"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What is handed to torch.compile, which gives it back as it is."""
    seen: list[nn.Module] = []

    def compile(module: nn.Module) -> nn.Module:
        seen.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setenv("CXX", "sh")  # any program: nothing is compiled
    return seen


@pytest.mark.parametrize(
    ("words", "hardware", "precision"),
    [
        ([], True, "bf16"),
        ([], False, "fp32"),
        (["mentor_precision=fp32"], True, "fp32"),
        (["mentor_precision=bf16"], False, "bf16"),
    ],
)
def test_mentors_are_made_fast_in_the_precision_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], hardware: bool, precision: str
) -> None:
    monkeypatch.setattr(context, "has_bf16", lambda device: hardware)
    made = opened(tmp_path, *words)
    mentor = made.optimized(made.blank_mentor(made.context.recipe.mentors[0]))
    assert isinstance(mentor, FastMentor)
    assert mentor.folded > 0
    assert made.context.mentor_precision == mentor.precision == precision
    assert not mentor.compiled


@pytest.mark.parametrize("wanted", [True, False])
def test_mentors_are_compiled_where_the_recipe_says_so(tmp_path: Path, compiled: list[nn.Module], wanted: bool) -> None:
    made = opened(tmp_path, f"mentor_compile={str(wanted).lower()}")
    mentor = made.optimized(made.blank_mentor(made.context.recipe.mentors[0]))
    assert isinstance(mentor, FastMentor)
    assert mentor.compiled == bool(compiled) == wanted


@pytest.mark.parametrize("wanted", [True, False])
def test_a_student_is_compiled_where_the_recipe_says_so(
    tmp_path: Path, compiled: list[nn.Module], wanted: bool
) -> None:
    made = opened(tmp_path, f"train.compile={str(wanted).lower()}")
    entry = teach_student(
        made, plan_bank(made), made.context.recipe.arms()[0], 0, [], tmp_path / "run", False, lambda event: None
    )
    assert entry["steps"] == 2
    assert len(compiled) == wanted


def test_fit_runs_the_compiled_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compile(module: nn.Module) -> Any:
        return lambda inputs: calls.append(len(inputs)) or module(inputs)

    monkeypatch.setattr(torch, "compile", compile)
    made = opened(tmp_path, "train.compile=true")
    run, views = made.context, plan_bank(made).views
    room = Classroom(models.create("convnet8", 10), [], "none", image_shape=run.data.shape)
    Training(
        run.runtime, room, run.student_part, None, views, run.inputs, run.recipe.train, run.classes, 0,
        measure=False,
    ).run()  # fmt: skip
    assert sum(calls) == len(run.student_part)


def test_large_blocks_are_kept_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[int, int] = {}

    def mallopt(key: int, value: int) -> int:
        settings[key] = value
        return 1

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocator.keep_large_blocks()
    assert settings[-1] == settings[-3] == 2**30  # as malloc.h numbers them: trim and mmap thresholds
    assert settings[-2] == 2**26
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not allocator.keep_large_blocks()  # a C library without it
    told: list[bool] = []
    monkeypatch.setattr(runtime, "keep_large_blocks", lambda: told.append(True))
    monkeypatch.setattr(allocator, "_own_process", False)
    allocator.claim_process()
    Runtime("cpu", "fp32", 1)
    assert told == [True]


def test_somebody_elses_process_keeps_its_allocator(tmp_path: Path) -> None:
    """A process that imports the package, opens a runtime and trains: mallopt is never called."""
    script = """
import ctypes, sys

class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        assert name != "mallopt", "the allocator was changed"
        return super().__getattr__(name)

ctypes.CDLL = Watched
import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.train.runtime import Runtime

Runtime("cpu", "fp32", 1)
data = {"source": "puppets", "options": {"train": 40, "test": 20, "image_size": 32}}
ck.distill("convnet4", [], data, "none", out=sys.argv[1], epochs=1, batch_size=20, device="cpu")
assert main(["list", "tasks"]) == 0
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=True, cwd=tmp_path, timeout=300)


def test_the_command_line_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["list", "tasks"]
    monkeypatch.setattr(allocator, "_own_process", False)
    assert app.main(words) == 0
    assert not allocator.is_own_process()  # called from Python
    monkeypatch.setattr(sys, "argv", ["classroomkd", *words])
    assert app.main() == 0
    assert allocator.is_own_process()
