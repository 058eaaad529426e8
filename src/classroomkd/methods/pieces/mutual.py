"""What methods share whose trainees teach each other: one trainee's terms, and the order in which the trainees step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from classroomkd.classroom import Batch, Lesson, Method, StepContext, Terms
from classroomkd.classroom.trainees import STUDENT, joined

__all__ = ["Mutual", "Order", "by_peers", "from_peers"]

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
        return joined({name: self.of(lesson, name) for name in (STUDENT, *lesson.peers)})

    def step(self, context: StepContext, batch: Batch) -> Lesson:
        """The base's step, or one trainee after the other: teachers, the student, the other peers in their order."""
        if self.order == "jacobi":
            return super().step(context, batch)
        lesson = now = context.lesson(batch)
        names, parts = self._turns(lesson), dict[str, Terms]()
        for name in names:
            parts[name] = self.of(now, name)
            context.backward(self.scaled(joined({name: parts[name]}), lesson).loss())
            context.update(name)
            if name != names[-1]:  # nobody learns from the last one's new answer
                now = context.again(now, name)
        everybody = {name: parts[name] for name in (STUDENT, *lesson.peers)}
        lesson.conclude(self.scaled(joined(everybody), lesson))
        self.after_step(context, lesson)
        return lesson

    def of(self, lesson: Lesson, name: str) -> Terms:
        """The terms of one trainee; see :meth:`each`."""
        return self.each(lesson if name == STUDENT else lesson.seen_by(name))

    def _turns(self, lesson: Lesson) -> tuple[str, ...]:
        others = [name for name in lesson.peers if name not in lesson.teachers]
        return (*lesson.teachers, STUDENT, *others)


def from_peers(lesson: Lesson, temperature: float) -> Tensor:
    """The mean over the peers of T² · KL(peer ‖ trainee), a scalar, over the units that may be taught.

    No gradient reaches the peers; teachers are none.
    """
    return by_peers(lesson, temperature)[0]


def by_peers(lesson: Lesson, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`from_peers`, and what each peer gives of it, for :attr:`Terms.parts`."""
    student, units = lesson.student.prediction, lesson.task.distill_mask(lesson.target)
    equals = {name: peer for name, peer in lesson.peers.items() if name not in lesson.teachers}
    peers = torch.stack([peer.prediction.detach().to(student.dtype) for peer in equals.values()])
    far = temperature**2 * lesson.task.divergence(student, peers, temperature)
    mean = lesson.mean(far.mean(0), units)
    with torch.no_grad():
        weight = 1.0 if lesson.sample_weight is None else lesson.sample_weight.view(-1, *[1] * (far.dim() - 2))
        sums = (weight * far.where(units, 0.0)).flatten(1).sum(1).clamp_min(0.0)
        shares = mean.detach() * sums / sums.sum().clamp_min(torch.finfo(sums.dtype).tiny)
    return mean, dict(zip(equals, shares.unbind(), strict=True))
