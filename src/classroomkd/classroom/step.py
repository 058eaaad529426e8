"""The step: what a method may ask of the loop that runs it.

``StepContext`` is the seam between methods and loops: the trainer implements it, and one's own loop gets
:class:`~classroomkd.classroom.plain_loop.PlainContext`, so nothing here or in a method imports a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from classroomkd.classroom.averaged import Buffers
from classroomkd.classroom.lesson import Answers, Lesson
from classroomkd.functional.bilevel import SGDRule

__all__ = ["Batch", "Inner", "LookContext", "StepContext"]

T = TypeVar("T")
Batch = Mapping[str, Any]  # inputs, target, and, where known, ids, views, extra_sizes


@dataclass(frozen=True)
class Inner:
    """What the main optimiser trains and how: the inner problem of a bilevel step.

    Attributes:
        parameters: by name, as :meth:`StepContext.functional` takes them.
        momentum: its momentum buffers under the same names, zeros where there are none yet.
        rule: its update.
    """

    parameters: dict[str, nn.Parameter]
    momentum: dict[str, Tensor]
    rule: SGDRule


class LookContext(Protocol):
    """What ``method.prepare(context, batches)`` can use: a look that nothing is trained by."""

    def lesson(self, batch: Batch) -> Lesson:
        """Everybody's answers to a batch, without gradient."""
        ...


class StepContext(Protocol):
    """What ``method.step(context, batch)`` can use."""

    def lesson(self, batch: Batch) -> Lesson:
        """Everybody's answers to a batch, not yet taught."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a scalar loss (scaled for precision and accumulation as the engine needs)."""
        ...

    def update(self, trainee: str | None = None) -> None:
        """One optimiser step on everything trainable, then clear the gradients.

        Args:
            trainee: ``student`` (with what the method trains) or a peer's name: its step alone, and its gradients;
                a step that names one names every trainee once.
        """
        ...

    def again(self, lesson: Lesson, trainee: str) -> Lesson:
        """The lesson with what a trainee answers now, after its update, without gradient.

        It answers as in training; its running statistics stay as they are, so that a batch counts once in them.
        """
        ...

    def average(self, decay: float, buffers: Buffers = "copy") -> None:
        """Have the averages that take part in the loss take in what was just learned.

        See :meth:`.averaged.Averaged.update`; after :meth:`update`.
        """
        ...

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks (itself on one)."""
        ...

    def student(self, inputs: Tensor) -> Answers:
        """The student's answers to inputs in its space; inside :meth:`functional` with the parameters given there."""
        ...

    def functional(self, parameters: Mapping[str, Tensor], compute: Callable[[], T]) -> T:
        """``compute()`` with these parameters in place of the student's and the method's own, for virtual steps.

        Names are those of :meth:`inner`. Buffers are copies that are thrown away, so running statistics stay.
        """
        ...

    def inner(self) -> Inner:
        """What the main optimiser trains and how."""
        ...
