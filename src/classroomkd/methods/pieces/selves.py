"""Whose earlier self a mentor is, for methods in which a trainee is also taught by what it was before."""

from __future__ import annotations

from collections.abc import Mapping

from classroomkd.classroom import ClassInfo
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import UserError

__all__ = ["own_mentors"]


def own_mentors(info: ClassInfo, selves: Mapping[str, str] | None, method: str) -> dict[str, int]:
    """By trainee its earlier self's place among the mentors.

    Args:
        info: the classroom.
        selves: the mentor's name by trainee; None: those that stages have left (:attr:`.ClassInfo.selves`), else
            mentors stand in the trainees' order.
        method: its name, for messages.

    Raises:
        UserError: it is not known whose self a mentor is, or a name is nobody's.
    """
    trainees, mentors = (STUDENT, *info.peers), list(info.mentors)
    form = ", ".join(f"{name}: NAME" for name in trainees)
    if selves is None and any(info.selves):
        selves = {whose: name for whose, name in zip(info.selves, mentors, strict=True) if whose is not None}
        if missing := [name for name in trainees if name not in selves]:
            raise UserError(
                f"{method}: no mentor is what {' and '.join(missing)} was after an earlier stage; make one of every "
                "network that such a stage trains, mentors: [{name: self, from: STAGE}], or say whose self each "
                f"mentor is, selves: {{{form}}}"
            )
    if selves is None and len(mentors) != len(trainees):
        raise UserError(
            f"{method}: {len(trainees)} trainees ({', '.join(trainees)}) and {len(mentors)} mentor(s) "
            f"({', '.join(mentors)}): say whose earlier self each is, selves: {{{form}}}"
        )
    named = selves if selves is not None else dict(zip(trainees, mentors, strict=True))
    if set(named) != set(trainees) or not set(named.values()) <= set(mentors):
        raise UserError(
            f"{method}: selves names a mentor for every trainee, selves: {{{form}}}; mentors: {', '.join(mentors)}"
        )
    return {trainee: mentors.index(mentor) for trainee, mentor in named.items()}
