"""One step of a training: what a method may ask of the engine, on Fabric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from classroomkd.bank import LOGITS, Bank
from classroomkd.classroom import Answers, Batch, Classroom, Inner, Lesson, StepInfo, inner_of, substituted
from classroomkd.classroom.averaged import Buffers
from classroomkd.classroom.trainees import STUDENT
from classroomkd.train.checkpoint import Component
from classroomkd.train.ema import Average
from classroomkd.train.inputs import Inputs, extra_size_of
from classroomkd.train.learner import Learner, idle_peers, tied, to_tie
from classroomkd.train.meter import Record
from classroomkd.train.padding import pad_batch
from classroomkd.train.peers import Peer
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
        peers: what is trained beside the student, by name.

    Attributes:
        accumulated: batches gone backward since the last update.
        trying: whether updates are left out: a step is only measured.
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
        peers: Mapping[str, Peer] | None = None,
    ) -> None:
        self.still = tuple(still)
        self.runtime, self.classroom, self.inputs, self.record = runtime, classroom, inputs, record
        self.progress = Progress() if progress is None else progress
        self.peers = dict(peers or {})
        raw = [optimizer, *(peer.raw_optimizer for peer in self.peers.values())]
        self.learner, self.optimizer, *others = runtime.fabric.setup(Learner(classroom, compile, untouched), *raw)
        for peer, wrapped in zip(self.peers.values(), others, strict=True):
            peer.optimizer = wrapped
        self.raw_optimizer = optimizer
        # The learner's method, whichever the classroom may be lent.
        self._tied = to_tie(classroom) if runtime.world > 1 else []
        self.accumulate, self.clip, self.accumulated, self.trying = accumulate, clip, 0, False
        self._stepped: set[str] = set()  # trainees that have had their turn in this batch
        self._last_loss: Tensor | None = None
        self._seen: tuple[Tensor, int] | None = None  # inputs of the last lesson with what fills them up, own samples
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
        if self._in_turns:  # it was not over when its losses went backward
            self._take_record()
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
        for peer in self.peers.values():
            components |= peer.components()
        if self.classroom.averaged is not None:
            components["averaged"] = self.classroom.averaged
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
        if self._tied or (self.runtime.world > 1 and self.peers):
            loss = tied(loss, [*self._tied, *idle_peers(self.classroom)])
        self._last_loss = loss.detach()
        with self._sync():
            self.runtime.fabric.backward(loss / self.accumulation_steps if self.accumulation_steps > 1 else loss)

    def update(self, trainee: str | None = None) -> None:
        """An optimiser step once all batches of the update went backward; earlier calls only count.

        A trainee's own step, where it is named: ``student`` (with the method) or a peer; see :class:`StepContext`.
        """
        if self.trying:
            return
        names = (STUDENT, *self.peers) if trainee is None else (trainee,)
        self.accumulated += not self._stepped  # once a batch, whoever is the first
        self._stepped.update(names)
        last = len(self._stepped) == 1 + len(self.peers)
        if last:
            self._stepped.clear()
        if self.accumulated < self.accumulation_steps:
            return
        if last:
            self.accumulated = 0
        optimizers = [self._optimizers(name) for name in names]
        if trainee is not None and self.runtime.world > 1:
            self._exchange(trainee)
        bad = self._bad(trainee) if self._masks else None
        for wrapped, raw in optimizers:
            if self.clip is not None:  # the norm of one trainee's gradient
                self.runtime.fabric.clip_gradients(self.learner, wrapped, max_norm=self.clip, error_if_nonfinite=False)
            if self._masks:
                # The fused kernels skip an update whose flag is set: a loss that is not finite never reaches the
                # weights, and nothing waits for the device to find out.
                raw.found_inf = bad
        scaler = self.runtime.scaler
        for wrapped, raw in optimizers:
            if scaler is None or len(optimizers) == 1:
                wrapped.step()
            else:  # the scale changes once, after all
                scaler.step(raw)
        if scaler is not None and len(optimizers) > 1:
            scaler.update()
        for wrapped, _ in optimizers:
            wrapped.zero_grad(set_to_none=True)
        for name in names:
            average, network = self._average(name)
            if average is not None:
                average.update(network)

    def average(self, decay: float, buffers: Buffers = "copy") -> None:
        """See :class:`StepContext`; after an update of the optimiser alone. A step that is only tried is undone."""
        if self.classroom.averaged is not None and not self.accumulated:
            self.classroom.averaged.update(self.classroom.branched, decay, buffers)

    def again(self, lesson: Lesson, trainee: str) -> Lesson:
        """See :class:`StepContext`; outside DDP."""
        assert self._seen is not None
        inputs, rows = self._seen
        with self.runtime.autocast():
            answers = self.classroom.answer_again(trainee, inputs)
        return lesson.with_answers(trainee, answers if rows == len(inputs) else answers.first(rows, 0))

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

    @property
    def _in_turns(self) -> bool:
        """Whether the method's step goes backward trainee by trainee."""
        return bool(self.classroom.learning) and self.classroom.method.has_own_step

    def _optimizers(self, trainee: str) -> tuple[Any, Any]:
        """As the runtime has wrapped it, and bare."""
        if trainee == STUDENT:
            return self.optimizer, self.raw_optimizer
        return self.peers[trainee].optimizer, self.peers[trainee].raw_optimizer

    def _average(self, trainee: str) -> tuple[Average | None, nn.Module]:
        if trainee == STUDENT:
            return self.averaged, self.classroom.student
        return self.peers[trainee].average, self.peers[trainee].network

    def _bad(self, trainee: str | None) -> Tensor | None:
        """Whether a loss was not finite, on any rank, as a float scalar on the device; None: nobody knows of one."""
        bad = self.record.is_bad()
        if trainee is not None and self._last_loss is not None:  # its lesson is not recorded yet
            now = (~self._last_loss.isfinite()).float()
            bad = now if bad is None else torch.maximum(bad, now)
        if bad is not None and self.runtime.world > 1:
            bad = self.runtime.reduce(bad).clamp_max(1.0)  # gradients are everybody's, so is the mask
        return bad

    def _exchange(self, trainee: str) -> None:
        """The mean over ranks of one trainee's gradients: DDP would wait for everybody's."""
        own = [p.grad for p in self.classroom.trained_with(trainee) if p.grad is not None]
        flat = self.runtime.reduce(torch.cat([g.flatten() for g in own])) / self.runtime.world
        for gradient, mean in zip(own, torch.split(flat, [g.numel() for g in own]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _sync(self) -> AbstractContextManager[Any]:
        """Ranks exchange gradients at the last batch of an update."""
        last = self.accumulated + 1 >= self.accumulation_steps and not self._in_turns
        context: AbstractContextManager[Any] = self.runtime.fabric.no_backward_sync(self.learner, enabled=not last)
        return context

    def _answered(self, inputs: Tensor, *others: Tensor) -> Any:
        """The learner's answers, as views: Fabric lets nobody but its backward pass through what it wraps, and a method
        may ask for gradients on the way (how hard mentors pull)."""

        def viewed(answer: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
            prediction, features = answer
            return prediction.view_as(prediction), {tap: value.view_as(value) for tap, value in features.items()}

        if not self.classroom.learning:
            return viewed(self.learner(inputs))
        student, peers = self.learner(inputs, peers=True, others=others)
        return viewed(student), {name: viewed(answer) for name, answer in peers.items()}

    def _collect(self, batch: Batch, answer: Callable[..., Any] | None) -> Lesson:
        device = self.runtime.device
        target, ids, views = (batch[k].to(device, non_blocking=True) for k in ("target", "ids", "views"))
        pixels = batch["pixels"]
        several = pixels.dim() > 4  # views of each sample
        shown = self.inputs(pixels.flatten(0, 1) if several else pixels)
        inputs = shown[: pixels.shape[1]] if several else shown
        given = shown.view(pixels.shape) if several and self.classroom.method.needs.views > 1 else inputs
        extra_sizes = {size: self.inputs(batch[key]) for key in batch if (size := extra_size_of(key)) is not None}
        if isinstance(self.classroom.mentors.store, Bank):
            self._stage(self.classroom.mentors.store, batch, inputs, extra_sizes)
        lesson = self.classroom.collect(
            given, target, ids=ids, views=views, answer=answer, extra_sizes=extra_sizes or None, info=self._info()
        )
        shares: tuple[int, ...] | None = batch.get("shares")
        self._seen = (inputs, len(inputs) if shares is None else shares[self.runtime.rank])
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
