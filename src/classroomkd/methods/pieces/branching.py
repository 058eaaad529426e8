"""What methods share that train branches of one student: everybody's own loss, and the ensemble as a teacher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from classroomkd.classroom import Lesson, Method, Terms
from classroomkd.classroom.schedule import Constant, Rampup, Schedule
from classroomkd.classroom.trainees import STUDENT, joined

__all__ = ["Branches", "Branching"]

Branches = Annotated[int, Field(ge=2)]


class Branching(Method):
    """Every branch has its own loss and learns from the ensemble, which has a loss of its own; see :meth:`together`.

    Args:
        temperature: T > 0, of what the ensemble says.
        weight: factor of what a branch learns from it.
        supervised_weight: factor of every branch's own loss, and of the ensemble's.
        ramp: how long what branches learn from others rises: up to 1 a share of the training, above 1 epochs; 0 = it
            does not.
    """

    def __init__(self, temperature: float, weight: float, supervised_weight: float, ramp: float) -> None:
        super().__init__()
        self.temperature, self.weight, self.supervised_weight = temperature, weight, supervised_weight
        self.ramp: Schedule = Rampup(epochs=ramp) if ramp else Constant()

    def schedules(self) -> list[Schedule]:
        """See the base: the ramp, too."""
        return [*super().schedules(), self.ramp]

    def joint(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """:meth:`together` in training, ``(B, …)``, and its own loss, a scalar."""
        answer = self.together(lesson.student, lesson.peers)
        assert answer is not None
        own = lesson.task.supervised(answer, lesson.target)
        return answer, lesson.mean(own, lesson.task.mask(lesson.target))

    def also(self, lesson: Lesson, name: str, factor: float) -> Terms | None:
        """What a branch, which stands in the student's place, learns beside that; ``factor`` is the ramp's."""
        return None

    def loss(self, lesson: Lesson) -> Terms:
        """The terms of all branches, and the ensemble's own."""
        ensemble, own = self.joint(lesson)
        factor = self.ramp(lesson.epoch, lesson.progress)
        parts = {}
        for name in (STUDENT, *lesson.peers):
            seen = lesson if name == STUDENT else lesson.seen_by(name)
            terms = self._of(seen, ensemble.detach(), factor)
            if (more := self.also(seen, name, factor)) is not None:
                terms = Terms(
                    {**terms.values, **more.values},
                    {**terms.coefficients, **more.coefficients},
                    parts={**terms.parts, **more.parts},
                )
            parts[name] = terms
        terms = joined(parts)
        terms.values["ensemble.supervised"] = own
        return Terms(
            terms.values,
            {**terms.coefficients, "ensemble.supervised": self.supervised_weight},
            parts=terms.parts,
        )

    def _of(self, lesson: Lesson, ensemble: Tensor, factor: float) -> Terms:
        """One branch's own loss, and what the ensemble says."""
        task, prediction = lesson.task, lesson.student.prediction
        own, units = task.supervised(prediction, lesson.target), task.distill_mask(lesson.target)
        far = task.divergence(prediction, ensemble.to(prediction.dtype).unsqueeze(0), self.temperature).squeeze(0)
        said = lesson.mean(self.temperature**2 * far, units)
        return Terms(
            {"supervised": lesson.mean(own, task.mask(lesson.target)), "ensemble": said},
            {"supervised": self.supervised_weight, "ensemble": self.weight * factor},
            parts={"ensemble": {"ensemble": said.detach()}},
        )
