"""Lines that every model card has."""

from __future__ import annotations

import torch

from classroomkd import __version__, models
from classroomkd.export.student import Student

__all__ = ["made_by", "numbers", "sizes"]


def made_by(student: Student) -> str:
    """Who taught it what."""
    about = student.metadata
    return (
        f"Taught with classroomkd {about.get('classroomkd', __version__)} by the method `{about.get('method', '?')}`\n"
        f"(seed {about.get('seed', '?')}) on {about.get('data', '?')}."
    )


def sizes(student: Student) -> str:
    """How large it is and what one input costs."""
    with torch.no_grad():
        macs = models.multiply_adds(student.module, student.shape)
    return f"{models.parameters(student.module):,} parameters, {macs:,} multiply-adds"


def numbers(values: tuple[float, ...]) -> str:
    """Four places each."""
    return "(" + ", ".join(f"{v:.4f}" for v in values) + ")"
