"""The engine's side of the step: Fabric's backward, clipping, accumulation, EMA, and the mask for bad updates.

DDP waits for a gradient of every parameter that it watches. Two kinds have none of their own in a step: a method's, in
a step that does not use them (the student alone, when its cost is measured; a term that comes later), and a student's
that its forward pass never touches. The first are tied to every loss with a gradient of zero; the second DDP is not
told of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classroomkd.bank import LOGITS, Bank
from classroomkd.classroom import Answers, Batch, Classroom, Inner, Lesson, inner_of, substituted
from classroomkd.train.ema import Average
from classroomkd.train.inputs import Inputs, extra_size_of
from classroomkd.train.meter import Record
from classroomkd.train.padding import pad_batch
from classroomkd.train.runtime import Runtime

__all__ = ["Learner", "StepRunner", "untouched"]

T = TypeVar("T")


class Learner(nn.Module):
    """What is trained, and so what Fabric wraps: the student and the method's own parameters, never a mentor."""

    _run: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]

    def __init__(self, classroom: Classroom, compile: bool = False, untouched: Collection[str] = ()) -> None:
        super().__init__()
        self.reader, self.method = classroom.reader, classroom.method
        # Not as a submodule: the compiled one holds the same parameters under other names.
        object.__setattr__(self, "_run", torch.compile(self.reader) if compile else self.reader)
        own = {id(p) for p in classroom.method.meta_parameters()}
        names = [name for name, p in self.named_parameters() if id(p) in own]
        # The method updates these by itself; waiting for their gradients would block every rank. Its buffers (a memory
        # of every sample) are the same on all ranks by its own doing; sending them around at every step is not needed.
        names += [name for name, _ in self.named_buffers() if name.startswith("method.")]
        names += [name for name, _ in self.named_parameters() if name.removeprefix("reader.module.") in untouched]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's prediction and taps."""
        return self._run(inputs)


class StepRunner:
    """A :class:`~classroomkd.classroom.StepContext` on Fabric.

    Args:
        runtime: devices, precision, ranks.
        classroom: student, mentors, method.
        optimizer: over the learner's parameters.
        inputs: pixels to inputs.
        record: where finite flags are.
        accumulate: batches per optimiser step.
        clip: largest gradient norm, or None.
        ema: decay of the averaged student, or None.
        compile: run the student through torch.compile.
        untouched: names of the student's parameters that no forward pass uses (:func:`untouched`); only under ranks.
    """

    def __init__(
        self,
        runtime: Runtime,
        classroom: Classroom,
        optimizer: torch.optim.Optimizer,
        inputs: Inputs,
        record: Record,
        *,
        accumulate: int = 1,
        clip: float | None = None,
        ema: float | None = None,
        compile: bool = False,
        untouched: Collection[str] = (),
    ) -> None:
        self.runtime, self.classroom, self.inputs, self.record = runtime, classroom, inputs, record
        self.learner, self.optimizer = runtime.fabric.setup(Learner(classroom, compile, untouched), optimizer)
        self.raw_optimizer = optimizer
        # The learner's method, whichever the classroom may be lent: only under ranks.
        apart = {id(p) for p in classroom.method.meta_parameters()}
        trained = [p for p in classroom.method.parameters() if p.requires_grad and id(p) not in apart]
        self._tied = trained if runtime.world > 1 else []
        self.accumulate, self.clip = accumulate, clip
        self.group = accumulate  # batches of this update; the last group of an epoch may be smaller
        self.waiting = 0  # backward passes since the last update
        self.averaged = None if ema is None else Average(classroom.student, ema)
        self._masks = (
            bool(optimizer.defaults.get("fused")) and runtime.precision != "fp16"
        )  # fp16's scaler masks itself
        if runtime.scaler is not None:  # one for all trainings of a process: each begins with a new one's state
            runtime.scaler.load_state_dict(torch.amp.GradScaler(runtime.device.type).state_dict())

    def lesson(self, batch: Batch) -> Lesson:
        """Everybody's answers to ``{"pixels", "target", "ids", "views"}``."""
        with self._sync(), self.runtime.autocast():
            return self._gathered(batch, self._answered)

    def aside(self, batch: Batch) -> Lesson:
        """:meth:`lesson` outside DDP and in full precision, for a look at gradients that no update follows."""
        return self._gathered(batch, None)

    def _answered(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The learner's answer, as views: Fabric lets nobody but its backward pass through what it wraps, and a method
        may ask for gradients on the way (how hard mentors pull)."""
        prediction, features = self.learner(inputs)
        return prediction.view_as(prediction), {tap: value.view_as(value) for tap, value in features.items()}

    def _gathered(self, batch: Batch, answer: Callable[[Tensor], Any] | None) -> Lesson:
        device = self.runtime.device
        target, ids, views = (batch[k].to(device, non_blocking=True) for k in ("target", "ids", "views"))
        inputs = self.inputs(batch["pixels"])
        extra_sizes = {size: self.inputs(batch[key]) for key in batch if (size := extra_size_of(key)) is not None}
        if isinstance(self.classroom.mentors.store, Bank):
            self._stage(self.classroom.mentors.store, batch, inputs, extra_sizes)
        lesson = self.classroom.collect(
            inputs, target, ids=ids, views=views, answer=answer, extra_sizes=extra_sizes or None
        )
        shares: tuple[int, ...] | None = batch.get("shares")
        return lesson if shares is None else lesson.without_filling(self.runtime.rank, shares)

    def _stage(self, bank: Bank, batch: Batch, inputs: Tensor, extra_sizes: Mapping[tuple[int, int], Tensor]) -> None:
        """Let the bank ask what it does not hold of this batch."""
        mentors = self.classroom.mentors

        def ask(mentor: int, rows: Tensor) -> Mapping[str, Tensor]:
            said = mentors.one(mentor, inputs, extra_sizes, pad_batch(rows))
            return {kind: x[: len(rows)] for kind, x in {LOGITS: said.prediction, **said.features}.items()}

        bank.stage(batch["ids"], batch["views"], ask)

    def _sync(self) -> AbstractContextManager[Any]:
        last = self.waiting + 1 >= self.group
        context: AbstractContextManager[Any] = self.runtime.fabric.no_backward_sync(self.learner, enabled=not last)
        return context

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of the loss over the group's size."""
        if self._tied:
            loss = _Tied.apply(loss, *self._tied)  # type: ignore[no-untyped-call]
        with self._sync():
            self.runtime.fabric.backward(loss / self.group if self.group > 1 else loss)

    def update(self) -> None:
        """An optimiser step once a group of batches went backward; earlier calls only count."""
        self.waiting += 1
        if self.waiting < self.group:
            return
        self.waiting = 0
        if self.clip is not None:
            self.runtime.fabric.clip_gradients(
                self.learner, self.optimizer, max_norm=self.clip, error_if_nonfinite=False
            )
        if self._masks:
            # The fused kernels skip an update whose flag is set: a loss that is not finite never reaches the weights,
            # and nothing waits for the device to find out.
            bad = self.record.is_bad()
            if bad is not None and self.runtime.world > 1:
                bad = self.runtime.reduce(bad).clamp_max(1.0)  # gradients are everybody's, so is the mask
            self.raw_optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update(self.classroom.student)

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks."""
        return self.runtime.reduce(tensor)

    def student(self, inputs: Tensor) -> Answers:
        """The student's own answers, outside DDP."""
        with self.runtime.autocast():
            return self.classroom.answer(inputs)

    def functional(self, parameters: Mapping[str, Tensor], compute: Callable[[], T]) -> T:
        """``compute()`` with other parameters and throw-away buffers."""
        return substituted(self.classroom, parameters, compute)

    def inner(self) -> Inner:
        """What the optimiser trains and how."""
        return inner_of(self.classroom, self.raw_optimizer)

    def teach(self, batch: Batch) -> Lesson:
        """One ``method.step`` and its record."""
        classroom = self.classroom
        lesson = classroom.method.step(_Recording(self), batch)
        classroom.steps += 1
        return lesson


class _Tied(torch.autograd.Function):
    """A loss as it is, on which parameters depend with a gradient of zero, whatever they hold."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.likes = [(p.shape, p.dtype, p.device) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        zeros = [torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.likes]
        return gradients[0], *zeros


def untouched(classroom: Classroom, inputs: Tensor) -> list[str]:
    """Names of the student's trainable parameters that neither its prediction nor a tap depends on.

    Args:
        classroom: before its first step; weights, buffers and the generators are as before afterwards.
        inputs: a batch in the student's space.
    """
    student, training = classroom.student, classroom.student.training
    kept = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.random.fork_rng([inputs.device] if inputs.device.type == "cuda" else []), torch.enable_grad():
        prediction, features = classroom.reader.train()(inputs)
        torch.stack([x.float().sum() for x in (prediction, *features.values())]).sum().backward()  # type: ignore[no-untyped-call]
    found = [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None]
    student.zero_grad(set_to_none=True)
    student.load_state_dict(kept)
    student.train(training)
    return found


class _Recording:
    """The context with the record filled between the terms and the update, where the mask needs it."""

    def __init__(self, context: StepRunner) -> None:
        self._context = context
        self._open: Lesson | None = None

    def lesson(self, batch: Batch) -> Lesson:
        self._open = self._context.lesson(batch)
        return self._open

    def backward(self, loss: Tensor) -> None:
        if self._open is not None and self._open.outcome is not None:
            self._context.record.add(self._open)
            self._open = None
        self._context.backward(loss)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._context, name)
        return found
