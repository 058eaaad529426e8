"""The step: what a method may ask of the loop that runs it.

``StepContext`` is the seam between methods and engines: the engine implements it, and a foreign loop gets
``PlainContext``, so nothing here or in a method imports an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from classroomkd.classroom.lesson import Lesson

__all__ = ["Batch", "PlainContext", "StepContext"]

Batch = Mapping[str, Any]  # inputs, target, and, where known, ids, views


class StepContext(Protocol):
    """What ``method.step(context, batch)`` can use."""

    def lesson(self, batch: Batch) -> Lesson:
        """Everybody's answers to a batch, not yet taught."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a scalar loss (scaled for precision and accumulation as the engine needs)."""
        ...

    def update(self) -> None:
        """One optimiser step on everything trainable, then clear the gradients."""
        ...

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks (itself on one)."""
        ...

    def functional(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The student's prediction with these parameters in place of its own; for virtual (bilevel) steps."""
        ...


class PlainContext:
    """A ``StepContext`` for one process and any optimiser: the loop of a notebook.

    Args:
        classroom: the :class:`~classroomkd.classroom.Classroom`.
        optimizer: over ``classroom.parameters()``.
    """

    def __init__(self, classroom: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.classroom, self.optimizer = classroom, optimizer

    def lesson(self, batch: Batch) -> Lesson:
        """See :class:`StepContext`."""
        lesson: Lesson = self.classroom.gather(  # type: ignore[operator]
            batch["inputs"], batch["target"], ids=batch.get("ids"), views=batch.get("views")
        )
        return lesson

    def backward(self, loss: Tensor) -> None:
        """See :class:`StepContext`."""
        torch.autograd.backward(loss)

    def update(self) -> None:
        """See :class:`StepContext`."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def reduce(self, tensor: Tensor) -> Tensor:
        """See :class:`StepContext`; one process."""
        return tensor

    def functional(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """See :class:`StepContext`."""
        student: nn.Module = self.classroom.student  # type: ignore[assignment]
        prediction: Tensor = torch.func.functional_call(student, dict(parameters), (inputs,))
        return prediction
