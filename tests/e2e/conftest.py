"""A small finished run that the end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroomkd.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "data.options.train=100", "data.options.test=40", "student.samples=60", "train.epochs=2", "mentor_train.epochs=2",
    "workers=1", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make the smoke recipe take a second, with a cache of mentors for the session."""
    return [*QUICK, f"cache={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture(scope="session")
def smoke() -> str:
    return str(ROOT / "recipes" / "smoke.yaml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> Path:
    """A run of two arms and two seeds."""
    out = tmp_path_factory.mktemp("runs") / "grid"
    assert main(["run", smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", str(out), "--quiet"]) == 0
    return out
