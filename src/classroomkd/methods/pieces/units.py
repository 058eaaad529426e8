"""Units of a sample on which a mentor has nothing to say, though it speaks of the sample's others.

Shapes: M mentors, B samples, U units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.functional.classroom import Grades

__all__ = ["partly", "silenced"]


def partly(silent_MBU: Tensor) -> Tensor:
    """``(M, B, U)`` bool: where a mentor is silent on some units of a sample only; nowhere where U = 1."""
    return silent_MBU & ~silent_MBU.all(-1, keepdim=True)


def silenced(grades: Grades, silent_MBU: Tensor, unit: bool) -> Grades:
    """Grades by which nobody teaches a unit on which it is silent, whatever its score on the batch.

    Args:
        grades: of all mentors.
        silent_MBU: bool.
        unit: whether weights are to sum to 1 over those who are left.
    """
    weight = grades.weight.masked_fill(silent_MBU, 0.0)
    if unit:
        weight = weight / weight.sum(0).clamp_min(torch.finfo(weight.dtype).tiny)
    return grades._replace(weight=weight, active=grades.active & ~silent_MBU)
