"""none: the student alone.

System   the baseline that every table must contain
Rule     L = mean over samples and units of the task's supervised loss (cross-entropy for classes)
Defaults none
Cost     1.00: this is the floor
Hurts    never; but it is what mentors have to beat
"""

from __future__ import annotations

from classroomkd.classroom import Lesson, Method, Needs, Terms

__all__ = ["Alone"]


class Alone(Method):
    """The student learns from labels only; mentors are neither asked nor needed."""

    needs = Needs(mentors=0)

    def loss(self, lesson: Lesson) -> Terms:
        """The supervised term."""
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        return Terms({"supervised": lesson.mean(own, lesson.task.mask(lesson.target))})
