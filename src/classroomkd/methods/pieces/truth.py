"""What stands for the truth on samples without a label, in rules that weigh mentors by how near they are to it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from classroomkd.classroom import Lesson

__all__ = ["Unlabelled", "truth"]

Unlabelled = Literal["agreement", "skip"]


def truth(kind: Unlabelled, lesson: Lesson) -> Tensor:
    """The target of a lesson as a rule reads it, ``(B, …)``.

    Args:
        kind: ``agreement``, with what the mentors agree on where there is no truth; ``skip``, as it is.
        lesson: one with mentors.
    """
    return lesson.agreed if kind == "agreement" else lesson.target
