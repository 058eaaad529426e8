"""One step of a training: what a method may ask of the engine, on Fabric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from classroomkd.bank import LOGITS, Bank
from classroomkd.classroom import Answers, Batch, Classroom, Inner, Lesson, StepInfo, inner_of, substituted
from classroomkd.train.checkpoint import Component
from classroomkd.train.ema import Average
from classroomkd.train.inputs import Inputs, extra_size_of
from classroomkd.train.learner import Learner, tied, to_tie
from classroomkd.train.meter import Record
from classroomkd.train.padding import pad_batch
from classroomkd.train.progress import Progress
from classroomkd.train.runtime import Runtime

__all__ = ["StepRunner"]

T = TypeVar("T")


class StepRunner:
    """Runs a method's steps: a :class:`~classroomkd.classroom.StepContext` on Fabric.

    Args:
        runtime: devices, precision, ranks.
        classroom: student, mentors, method.
        optimizer: over the learner's parameters.
        inputs: pixels to inputs.
        record: takes in every lesson of a step, and knows whether a loss was not finite.
        progress: where the training stands; counted on by every step.
        accumulate: batches per optimiser step.
        clip: largest gradient norm, or None.
        ema: decay of the averaged student, or None.
        compile: run the student through torch.compile.
        untouched: names of the student's parameters that no forward pass uses (:func:`.learner.untouched`); only under
            ranks.
        still: layers that stay in evaluation mode (:func:`.parts.freeze`).

    Attributes:
        accumulated: backward passes since the last update.
    """

    def __init__(
        self,
        runtime: Runtime,
        classroom: Classroom,
        optimizer: torch.optim.Optimizer,
        inputs: Inputs,
        record: Record,
        progress: Progress | None = None,
        *,
        accumulate: int = 1,
        clip: float | None = None,
        ema: float | None = None,
        compile: bool = False,
        untouched: Collection[str] = (),
        still: Sequence[nn.Module] = (),
    ) -> None:
        self.still = tuple(still)
        self.runtime, self.classroom, self.inputs, self.record = runtime, classroom, inputs, record
        self.progress = Progress() if progress is None else progress
        self.learner, self.optimizer = runtime.fabric.setup(Learner(classroom, compile, untouched), optimizer)
        self.raw_optimizer = optimizer
        # The learner's method, whichever the classroom may be lent.
        self._tied = to_tie(classroom) if runtime.world > 1 else []
        self.accumulate, self.clip, self.accumulated = accumulate, clip, 0
        self.averaged = None if ema is None else Average(classroom.student, ema)
        self._lessons: list[Lesson] | None = None  # of the step under way, not yet recorded; None: no step is
        fused = bool(optimizer.defaults.get("fused"))
        self._masks = fused and runtime.precision != "fp16"  # fp16's scaler masks itself
        if runtime.scaler is not None:  # one for all trainings of a process: each begins with a new one's state
            runtime.scaler.load_state_dict(torch.amp.GradScaler(runtime.device.type).state_dict())

    def step(self, batch: Batch) -> Lesson:
        """One ``method.step`` on ``{"pixels", "target", "ids", "views"}``, whose lessons are recorded."""
        self._lessons = []
        lesson = self.classroom.method.step(self, batch)
        self._lessons = None
        self.progress.step += 1
        return lesson

    def train(self, mode: bool = True) -> None:
        """Set the classroom's mode; what is frozen stays in evaluation mode."""
        self.classroom.train(mode)
        for layer in self.still:
            layer.eval()

    def components(self) -> dict[str, Component]:
        """What makes up the state of the steps, by the name it has in a checkpoint."""
        components: dict[str, Component] = {
            "progress": self.progress,
            "student": self.classroom.student,
            "method": self.classroom.method,
            "optimizer": self.raw_optimizer,
            "record": self.record,
            "runtime": self.runtime,
        }
        return components if self.averaged is None else {**components, "average": self.averaged}

    @property
    def accumulation_steps(self) -> int:
        """Batches of this update; the last update of an epoch may have fewer."""
        return min(self.accumulate, self.progress.left_from(self.accumulate))

    def lesson(self, batch: Batch) -> Lesson:
        """Everybody's answers to a batch."""
        with self._sync(), self.runtime.autocast():
            lesson = self._collect(batch, self._answered)
        if self._lessons is not None:
            self._lessons.append(lesson)
        return lesson

    def aside(self, batch: Batch) -> Lesson:
        """:meth:`lesson` outside DDP and in full precision, for a look at gradients that no update follows."""
        return self._collect(batch, None)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of the loss over the batches of the update, and record the lessons taught so far."""
        self._take_record()  # before the update, which asks the record whether it may act
        loss = tied(loss, self._tied)
        with self._sync():
            self.runtime.fabric.backward(loss / self.accumulation_steps if self.accumulation_steps > 1 else loss)

    def update(self, trainee: str | None = None) -> None:
        """An optimiser step once all batches of the update went backward; earlier calls only count."""
        self.accumulated += 1
        if self.accumulated < self.accumulation_steps:
            return
        self.accumulated = 0
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

    def again(self, lesson: Lesson, trainee: str) -> Lesson:
        """See :class:`StepContext`."""
        with self.runtime.autocast():
            return lesson.with_answers(trainee, self.classroom.answer_again(trainee, lesson.inputs))

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

    def _take_record(self) -> None:
        for lesson in self._lessons or ():
            if lesson.outcome is not None:
                self.record.add(lesson)
        if self._lessons is not None:
            self._lessons = [lesson for lesson in self._lessons if lesson.outcome is None]

    def _sync(self) -> AbstractContextManager[Any]:
        """Ranks exchange gradients at the last batch of an update."""
        last = self.accumulated + 1 >= self.accumulation_steps
        context: AbstractContextManager[Any] = self.runtime.fabric.no_backward_sync(self.learner, enabled=not last)
        return context

    def _answered(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The learner's answer, as views: Fabric lets nobody but its backward pass through what it wraps, and a method
        may ask for gradients on the way (how hard mentors pull)."""
        prediction, features = self.learner(inputs)
        return prediction.view_as(prediction), {tap: value.view_as(value) for tap, value in features.items()}

    def _collect(self, batch: Batch, answer: Callable[[Tensor], Any] | None) -> Lesson:
        device = self.runtime.device
        target, ids, views = (batch[k].to(device, non_blocking=True) for k in ("target", "ids", "views"))
        inputs = self.inputs(batch["pixels"])
        extra_sizes = {size: self.inputs(batch[key]) for key in batch if (size := extra_size_of(key)) is not None}
        if isinstance(self.classroom.mentors.store, Bank):
            self._stage(self.classroom.mentors.store, batch, inputs, extra_sizes)
        lesson = self.classroom.collect(
            inputs, target, ids=ids, views=views, answer=answer, extra_sizes=extra_sizes or None, info=self._info()
        )
        shares: tuple[int, ...] | None = batch.get("shares")
        return lesson if shares is None else lesson.without_filling(self.runtime.rank, shares)

    def _info(self) -> StepInfo:
        at, runtime = self.progress, self.runtime
        reduce, join = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
        return StepInfo(at.step, at.position, at.share, reduce, join, self.record.watch, runtime.skips_rows)

    def _stage(self, bank: Bank, batch: Batch, inputs: Tensor, extra_sizes: Mapping[tuple[int, int], Tensor]) -> None:
        """Let the bank ask what it does not hold of this batch."""
        mentors = self.classroom.mentors

        def ask(mentor: int, rows: Tensor) -> Mapping[str, Tensor]:
            answers = mentors.one(mentor, inputs, extra_sizes, pad_batch(rows))
            return {kind: x[: len(rows)] for kind, x in {LOGITS: answers.prediction, **answers.features}.items()}

        bank.stage(batch["ids"], batch["views"], ask)
