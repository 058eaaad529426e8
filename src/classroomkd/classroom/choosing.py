"""Which mentors a method reads: all of them, or one by name, position or score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.classroom.method import ClassInfo

__all__ = ["choose"]


def choose(info: ClassInfo, mentor: str | int, label: str) -> tuple[int, ...]:
    """Places on the M axis.

    Args:
        info: the classroom; ``scores`` decide ``best`` (the first mentor where nobody measured).
        mentor: ``all``, ``best``, a name, or a position from 0.
        label: the method, for messages.

    Raises:
        UserError: no such mentor.
    """
    names = list(info.mentors)
    if mentor == "all":
        return tuple(range(len(names)))
    if isinstance(mentor, int):
        if not 0 <= mentor < len(names):
            raise UserError(f"{label}: mentor {mentor} does not exist; there are {len(names)}, counted from 0")
        return (mentor,)
    if mentor == "best":
        scores = info.scores or [0.0] * len(names)
        return (max(range(len(names)), key=scores.__getitem__),)
    if mentor in names:
        return (names.index(mentor),)
    raise UserError(f"{label}: no mentor '{mentor}'{did_you_mean(mentor, names)}; mentors: {', '.join(names)}")
