"""Pieces that methods are put together from: how far (divergences) and how much each mentor counts (weightings)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from classroomkd._pieces import make
from classroomkd.methods.pieces.divergences import DIVERGENCES, Divergence, DivergenceOption, make_divergence
from classroomkd.methods.pieces.graded import Graded
from classroomkd.methods.pieces.weightings import (
    Best,
    Confidence,
    Entropy,
    Gram,
    Random,
    Uniform,
    Weighed,
    Weighting,
)

__all__ = [
    "DIVERGENCES",
    "WEIGHTINGS",
    "Divergence",
    "DivergenceOption",
    "Weighed",
    "Weighting",
    "WeightingOption",
    "make_divergence",
    "make_weighting",
]

WeightingOption = (
    Literal["uniform", "entropy", "confidence", "gram", "random", "best", "classroomkd"] | Mapping[str, Any]
)
WEIGHTINGS: dict[str, type[Weighting]] = {
    "uniform": Uniform,
    "entropy": Entropy,
    "confidence": Confidence,
    "gram": Gram,
    "random": Random,
    "best": Best,
    "classroomkd": Graded,
}


def make_weighting(value: str | Mapping[str, Any]) -> Weighting:
    """A weighting by name or mapping."""
    return make("weighting", WEIGHTINGS, value)
