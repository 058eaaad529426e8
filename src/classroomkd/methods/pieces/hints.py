"""Hints: how far the student's projected features are from each mentor's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson
from classroomkd.errors import UserError
from classroomkd.functional import wide
from classroomkd.taps.adapters import Resize, adapter

__all__ = ["Hints", "Projector", "ProjectorOrNone"]

Projector = Literal["conv", "bottleneck", "linear"]
ProjectorOrNone = Literal["conv", "bottleneck", "linear", "none"]


class Hints(nn.Module):
    """One trained projector a mentor, from the student's map at a tap to the mentor's there.

    Args:
        tap: read in the student.
        kind: of projector; see :func:`classroomkd.taps.adapters.adapter`. ``none``: channel by channel as they are.
        theirs: read in the mentors; None = the same tap.
    """

    def __init__(self, tap: str, kind: ProjectorOrNone = "conv", theirs: str | None = None) -> None:
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
            if self.kind == "none":
                self.projectors.append(_as_it_is(own, theirs[place], what))
            else:
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


def _as_it_is(own: Sequence[int], theirs: Sequence[int], what: str) -> nn.Module:
    """What brings the student's map to the mentor's height and width, and leaves its channels.

    Raises:
        UserError: other channels, or a map beside a vector.
    """
    if own[0] != theirs[0] or len(own) != len(theirs):
        one, other = ("x".join(map(str, shape)) for shape in (own, theirs))
        raise UserError(
            f"projector: none compares channel with channel, and {what} are {one} and {other}; choose taps with as "
            "many channels, a projector (projector: conv), or kcd, which matches them"
        )
    return Resize(theirs[1:]) if own[1:] != theirs[1:] else nn.Identity()
