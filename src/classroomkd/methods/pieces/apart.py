"""Several networks that one method teaches each by itself, in one training: nobody hears of another."""

from __future__ import annotations

from dataclasses import replace

from classroomkd.classroom import ClassInfo, Lesson, Method, Terms
from classroomkd.classroom.schedule import Schedule
from classroomkd.classroom.trainees import STUDENT, is_own_loss, joined, shared_out

__all__ = ["Apart", "refuse"]


def refuse(method: Method) -> str | None:
    """Why a method cannot teach several networks alike; None where it can."""
    if method.needs.branches > 1:
        return "it cuts the network into branches"
    if method.needs.features or method.needs.heads:
        return "it reads features"
    if method.has_own_step or method.needs.sgd or type(method).after_step is not Method.after_step:
        return "it has a step of its own"
    if any(True for _ in method.parameters()):
        return "it learns something itself"
    return None


class Apart(Method):
    """A method for the student and any number of peers, each taught as if it were the student alone.

    Args:
        method: that :func:`refuse` has nothing against; ``strength`` and ``schedule`` are its own.
    """

    combines = True

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.one, self.needs = method, replace(method.needs, peers=(0, None))
        self.weighs_samples = method.weighs_samples
        self.mentors: tuple[str, ...] = ()

    def setup(self, info: ClassInfo) -> None:
        """Have the method see its mentors."""
        self.one.setup(replace(info, peers=()))
        self.mentors = tuple(info.mentors)
        self.mentor_indices, self.order_matters = self.one.mentor_indices, self.one.order_matters

    def loss(self, lesson: Lesson) -> Terms:
        """Everybody's terms; the record is the first one's."""
        alone = replace(lesson, peers={})
        rooms = {STUDENT: alone} | {name: replace(alone, student=answers) for name, answers in lesson.peers.items()}
        return joined({name: self._told(self.one(room)) for name, room in rooms.items()})

    def _told(self, terms: Terms) -> Terms:
        """With who gave each term: the record is the first one's alone."""
        weight = terms.weight
        if weight is None or len(weight) != len(self.mentors):
            return terms
        named = [name for name in terms.values if not is_own_loss(name) and name not in terms.parts]
        parts = {name: shared_out(terms.values[name], weight, self.mentors) for name in named}
        return replace(terms, parts={**terms.parts, **parts})

    def schedules(self) -> list[Schedule]:
        """The method's own."""
        return self.one.schedules()
