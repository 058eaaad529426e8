"""What methods share whose trainees teach each other: one trainee's terms, and the order in which the trainees step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from classroomkd.classroom import Batch, Lesson, Method, StepContext, Terms
from classroomkd.classroom.trainees import STUDENT, joined

__all__ = ["Mutual", "Order", "from_peers"]

Order = Literal["jacobi", "gauss_seidel"]


class Mutual(Method):
    """A method that treats its trainees alike: a subclass says with :meth:`each` what one of them learns.

    Args:
        order: ``jacobi``: all learn from the same answers and step together; ``gauss_seidel``: one steps and answers
            again before the next learns.
    """

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order

    @property
    def has_own_step(self) -> bool:
        """See the base: one backward pass is the base's."""
        return self.order != "jacobi"

    def each(self, lesson: Lesson) -> Terms:
        """The terms of the trainee that stands in the student's place; others' answers are to be detached."""
        raise NotImplementedError

    def loss(self, lesson: Lesson) -> Terms:
        """All trainees' terms, from the answers as they are."""
        return joined({name: self._of(lesson, name) for name in (STUDENT, *lesson.peers)})

    def step(self, context: StepContext, batch: Batch) -> Lesson:
        """The base's step, or one trainee after the other in the order of the peers, the student first."""
        if self.order == "jacobi":
            return super().step(context, batch)
        lesson = now = context.lesson(batch)
        names, parts = (STUDENT, *lesson.peers), dict[str, Terms]()
        for name in names:
            parts[name] = self._of(now, name)
            context.backward(self.scaled(joined({name: parts[name]}), lesson).loss())
            context.update(name)
            if name != names[-1]:  # nobody learns from the last one's new answer
                now = context.again(now, name)
        lesson.conclude(self.scaled(joined(parts), lesson))
        self.after_step(context, lesson)
        return lesson

    def _of(self, lesson: Lesson, name: str) -> Terms:
        return self.each(lesson if name == STUDENT else lesson.seen_by(name))


def from_peers(lesson: Lesson, temperature: float) -> Tensor:
    """The mean over the peers of T² · KL(peer ‖ trainee), a scalar, over the units that may be taught.

    No gradient reaches the peers.
    """
    student = lesson.student.prediction
    peers = torch.stack([peer.prediction.detach().to(student.dtype) for peer in lesson.peers.values()])
    far = temperature**2 * lesson.task.divergence(student, peers, temperature)
    return lesson.mean(far.mean(0), lesson.task.distill_mask(lesson.target))
