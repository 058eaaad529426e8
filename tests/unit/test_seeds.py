"""No test draws what another machine, order or worker would not: ``tests/conftest.py`` starts every generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

Draws = tuple[float, float, float]


def draws() -> Draws:
    return random.random(), float(np.random.random()), float(torch.rand(()))


AT_READING = draws()
seen: list[Draws] = []


@pytest.fixture(scope="module")
def shared() -> Draws:
    return draws()


@pytest.mark.parametrize("_again", range(3))
def test_every_test_draws_the_same(_again: int) -> None:
    seen.append(draws())
    assert set(seen) == {AT_READING}


def test_what_is_shared_is_drawn_anew(shared: Draws) -> None:
    assert shared == AT_READING
    assert draws() == AT_READING
