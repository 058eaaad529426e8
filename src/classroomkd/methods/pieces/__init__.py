"""Pieces that methods are put together from: how far (divergences) and how much each mentor counts (weightings)."""

from classroomkd.methods.pieces.divergences import DIVERGENCES, Divergence, DivergenceOption, make_divergence
from classroomkd.methods.pieces.weightings import WEIGHTINGS, Weighting, WeightingOption, make_weighting

__all__ = [
    "DIVERGENCES",
    "WEIGHTINGS",
    "Divergence",
    "DivergenceOption",
    "Weighting",
    "WeightingOption",
    "make_divergence",
    "make_weighting",
]
