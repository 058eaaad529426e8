"""What one's own training loop gives a method's step: :class:`PlainContext`, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from classroomkd._renamed import warn_old_name
from classroomkd.classroom.averaged import Buffers
from classroomkd.classroom.classroom import Classroom
from classroomkd.classroom.lesson import Answers, Lesson
from classroomkd.classroom.step import Batch, Inner
from classroomkd.classroom.trainees import STUDENT
from classroomkd.functional.bilevel import SGDRule, momentum_of

__all__ = ["PlainContext", "inner_of", "substituted"]

T = TypeVar("T")


def inner_of(classroom: Classroom, optimizer: torch.optim.Optimizer) -> Inner:
    """The inner problem of a classroom under an optimiser.

    Raises:
        UserError: an optimiser that is not SGD.
    """
    own = {id(p) for p in classroom.method.meta_parameters()}
    trained = {name: p for name, p in classroom.named_parameters() if p.requires_grad and id(p) not in own}
    return Inner(trained, momentum_of(optimizer, trained), SGDRule.of(optimizer))


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
    result: T = torch.func.functional_call(_Calls(module), tensors, (compute,))
    return result


class PlainContext:
    """A ``StepContext`` for one process and any optimiser: the loop of a notebook.

    Args:
        classroom: the :class:`~classroomkd.classroom.Classroom`.
        optimizer: over ``classroom.parameters()``, peers' included.
    """

    def __init__(self, classroom: Classroom, optimizer: torch.optim.Optimizer) -> None:
        self.classroom, self.optimizer = classroom, optimizer

    def lesson(self, batch: Batch) -> Lesson:
        """See :class:`StepContext`."""
        known = {key: batch.get(key) for key in ("ids", "views", "extra_sizes")}
        if "sights" in batch:
            warn_old_name('batch["sights"]', "extra_sizes")
            known["extra_sizes"] = batch["sights"]
        return self.classroom.check_once(self.classroom.collect(batch["inputs"], batch.get("target"), **known))

    def backward(self, loss: Tensor) -> None:
        """See :class:`StepContext`."""
        torch.autograd.backward(loss)

    def update(self, trainee: str | None = None) -> None:
        """See :class:`StepContext`; what has no gradient, an optimiser passes over."""
        aside: list[tuple[nn.Parameter, Tensor]] = []
        if trainee is not None:
            own = {id(p) for p in self.classroom.trained_with(trainee)}
            for p in self.classroom.parameters():
                if id(p) not in own and p.grad is not None:
                    aside.append((p, p.grad))
                    p.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for p, gradient in aside:
            p.grad = gradient
        self.classroom.steps += trainee in (None, STUDENT)

    def again(self, lesson: Lesson, trainee: str) -> Lesson:
        """See :class:`StepContext`."""
        return lesson.with_answers(trainee, self.classroom.answer_again(trainee, lesson.inputs))

    def average(self, decay: float, buffers: Buffers = "copy") -> None:
        """See :class:`StepContext`."""
        if self.classroom.averaged is not None:
            self.classroom.averaged.update(self.classroom.branched, decay, buffers)

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
