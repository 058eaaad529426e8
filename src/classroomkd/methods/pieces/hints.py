"""Hints: how far the student's projected features are from each mentor's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson
from classroomkd.functional import wide
from classroomkd.taps.adapters import adapter

__all__ = ["Hints", "Projector"]

Projector = Literal["conv", "bottleneck", "linear"]


class Hints(nn.Module):
    """One trained projector a mentor, from the student's map at a tap to the mentor's there.

    Args:
        tap: read in the student.
        kind: of projector; see :func:`classroomkd.taps.adapters.adapter`.
        theirs: read in the mentors; None = the same tap.
    """

    def __init__(self, tap: str, kind: Projector = "conv", theirs: str | None = None) -> None:
        super().__init__()
        self.tap, self.kind, self.theirs = tap, kind, theirs or tap
        self.projectors = nn.ModuleList()

    def setup(self, info: ClassInfo, places: Sequence[int] | None = None) -> None:
        """Build the projectors, where shapes are known; ``places`` of the only mentors that are asked."""
        if info.shapes is None:
            return
        own, theirs = info.shapes.student[self.tap], info.shapes.mentors[self.theirs]
        for place in range(len(theirs)) if places is None else places:
            what = f"student's '{self.tap}' and mentor '{info.mentors[place]}''s '{self.theirs}'"
            self.projectors.append(adapter(own, theirs[place], self.kind, what=what))

    def projected(self, lesson: Lesson) -> list[Tensor]:
        """The student's features as each mentor would have them, each ``(B, channels, H, W)``."""
        own = lesson.student.features[self.tap]
        return [projector(own) for projector in self.projectors]

    def forward(self, lesson: Lesson) -> Tensor:
        """Mean squared error by mentor and sample, ``(M, B)``, in float32 at least."""
        assert lesson.mentors is not None
        theirs = lesson.mentors.features[self.theirs]
        far = [
            (wide(ours) - wide(mentor)).square().flatten(1).mean(1)
            for ours, mentor in zip(self.projected(lesson), theirs, strict=True)
        ]
        return torch.stack(far)
