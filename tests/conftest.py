"""Shared pieces of the tests. Nothing here needs data, a network or a GPU."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
SEED = 20260


def seed() -> None:
    """Start every generator that a test draws from without naming it."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, alone and among others, in any order and on any worker."""
    seed()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
    """What tests share is made before the fixture above: the same, whichever of them asks for it first."""
    if fixturedef.scope != "function":
        seed()
    return (yield)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """And what a file draws when it is read."""
    if isinstance(collector, pytest.Module):
        seed()


@pytest.fixture
def data_root() -> Path:
    """The folder of real data, or a skip."""
    root = os.environ.get("CLASSROOMKD_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("CLASSROOMKD_DATA is not set")
    return Path(root).resolve()
