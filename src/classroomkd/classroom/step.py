"""The step: what a method may ask of the loop that runs it.

``StepContext`` is the seam between methods and engines: the engine implements it, and a foreign loop gets
``PlainContext``, so nothing here or in a method imports an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from classroomkd._renamed import warn_old_name
from classroomkd.classroom.lesson import Answers, Lesson
from classroomkd.functional.bilevel import SGDRule, momentum_of

if TYPE_CHECKING:
    from classroomkd.classroom.classroom import Classroom

__all__ = ["Batch", "Inner", "PlainContext", "StepContext", "inner_of", "substituted"]

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


def inner_of(classroom: Classroom, optimizer: torch.optim.Optimizer) -> Inner:
    """The inner problem of a classroom under an optimiser.

    Raises:
        UserError: an optimiser that is not SGD.
    """
    own = {id(p) for p in classroom.method.meta_parameters()}
    found = {name: p for name, p in classroom.named_parameters() if p.requires_grad and id(p) not in own}
    return Inner(found, momentum_of(optimizer, found), SGDRule.of(optimizer))


class _Calls(nn.Module):
    """Runs whatever it is given, with ``module``'s tensors replaced meanwhile."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


def substituted(module: nn.Module, parameters: Mapping[str, Tensor], compute: Callable[[], T]) -> T:
    """``compute()`` with these parameters, and throw-away copies of all buffers, in place of the module's own."""
    tensors = {f"module.{name}": buffer.clone() for name, buffer in module.named_buffers()}
    tensors |= {f"module.{name}": value for name, value in parameters.items()}
    found: T = torch.func.functional_call(_Calls(module), tensors, (compute,))
    return found


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


class PlainContext:
    """A ``StepContext`` for one process and any optimiser: the loop of a notebook.

    Args:
        classroom: the :class:`~classroomkd.classroom.Classroom`.
        optimizer: over ``classroom.parameters()``.
    """

    def __init__(self, classroom: Classroom, optimizer: torch.optim.Optimizer) -> None:
        self.classroom, self.optimizer = classroom, optimizer

    def lesson(self, batch: Batch) -> Lesson:
        """See :class:`StepContext`."""
        known = {key: batch.get(key) for key in ("ids", "views", "extra_sizes")}
        if "sights" in batch:
            warn_old_name('batch["sights"]', "extra_sizes")
            known["extra_sizes"] = batch["sights"]
        return self.classroom.collect(batch["inputs"], batch["target"], **known)

    def backward(self, loss: Tensor) -> None:
        """See :class:`StepContext`."""
        torch.autograd.backward(loss)

    def update(self) -> None:
        """See :class:`StepContext`."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.classroom.steps += 1

    def reduce(self, tensor: Tensor) -> Tensor:
        """See :class:`StepContext`; one process."""
        return tensor

    def student(self, inputs: Tensor) -> Answers:
        """See :class:`StepContext`."""
        return self.classroom.answer(inputs)

    def functional(self, parameters: Mapping[str, Tensor], compute: Callable[[], T]) -> T:
        """See :class:`StepContext`."""
        return substituted(self.classroom, parameters, compute)

    def inner(self) -> Inner:
        """See :class:`StepContext`."""
        return inner_of(self.classroom, self.optimizer)
