"""The training loop: one network, one method, one seed; killed anywhere it resumes to the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import nn

from classroomkd.bank import Bank
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews
from classroomkd.train import checkpoint, stopping
from classroomkd.train.course import Course, Result
from classroomkd.train.gradient_scale import loud, measure
from classroomkd.train.inputs import Batches, Inputs, left_out
from classroomkd.train.memory_format import settle
from classroomkd.train.metrics_log import open_log
from classroomkd.train.not_finite import NotFinite
from classroomkd.train.optim import learning_rate
from classroomkd.train.runtime import Runtime
from classroomkd.train.scoring import Score, evaluate
from classroomkd.train.step import StepRunner, untouched
from classroomkd.train.step_context import step_context
from classroomkd.train.step_cost import Cost, probe
from classroomkd.train.watch import Watch

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import TrainSpec

__all__ = ["Notify", "Result", "Training"]

Notify = Callable[[dict[str, Any]], None]
EvaluateFn = Callable[[nn.Module, "Part", Inputs, int], Score]


def _silent(event: dict[str, Any]) -> None:
    pass


@dataclass
class Training:
    """One training.

    Args:
        classroom: student, mentors and method, on the runtime's device.
        train, val: parts of the data; ``val`` selects the best epoch and never the test part.
        views: the augmentation.
        inputs: pixels to inputs.
        spec: epochs, batch, optimiser and so on.
        classes: topic names of *who taught what*.
        seed: of order, views and weights' noise.
        folder: where metrics and checkpoints go; None = nowhere.
        notify: called with progress events.
        measure: whether the step is timed against the student alone first, and the mentors' gradient is.
        told: what sentences for the user call this training; empty: what is said once for all seeds is left to others.
        on_bad_mentor: what to do where a mentor's answer is not finite: leave it out, or stop.
        evaluate_fn: scores a network on a part; None: accuracy by class.
        extra_sizes: (H, W) at which mentors want the views drawn, beside the student's own.
        size: (H, W) at which the network that is trained wants them; None: the data's.
        asked: the signal that asks to stop, or None; looked at after each update.
    """

    runtime: Runtime
    classroom: Classroom
    train: Part
    val: Part | None
    views: Views
    inputs: Inputs
    spec: TrainSpec
    classes: Sequence[str]
    seed: int
    folder: Path | None = None
    notify: Notify = _silent
    measure: bool = True
    told: str = ""
    on_bad_mentor: Literal["skip", "stop"] = "skip"
    evaluate_fn: EvaluateFn | None = None
    extra_sizes: Sequence[tuple[int, int]] = ()
    size: tuple[int, int] | None = None
    asked: Callable[[], int | None] = stopping.asked
    _course: Course = field(default_factory=Course)

    def run(self, resume: bool = False) -> Result:
        """Train to the last epoch.

        Raises:
            RunStopped: a loss that is not finite (names the term); the last good checkpoint is kept.
            Interrupted, KeyboardInterrupt: a signal; the update was finished and a checkpoint written.
        """
        with stopping.patient():
            return self._run(resume)

    def _run(self, resume: bool) -> Result:
        spec, runtime, classroom = self.spec, self.runtime, self.classroom
        batches = Batches(
            self.train,
            self.views,
            spec.batch_size,
            self.seed,
            drop_last=None if spec.drop_last == "auto" else bool(spec.drop_last),
            whole_batch=classroom.method.needs.whole_batch,
            rank=runtime.rank,
            world=runtime.world,
            sizes=self.extra_sizes,
            size=self.size,
            device=runtime.device,
        )
        if runtime.is_zero and (said := left_out(batches.dropped, len(self.train), spec)) is not None:
            self.notify({"event": "note", "text": said})
        torch.manual_seed(self.seed + 7919)
        if spec.channels_last == "auto":
            first_pixels = self.inputs(next(batches.epoch(0))["pixels"])
            last = settle(classroom.student, first_pixels, runtime, self.folder, resume)
            self.inputs = Inputs(self.inputs.mean, self.inputs.std, self.inputs.device, last)
        else:
            last = spec.channels_last
        reduce, join = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
        idle = untouched(classroom, self.inputs(next(batches.epoch(0))["pixels"])) if runtime.world > 1 else ()
        context = step_context(
            runtime,
            classroom,
            self.inputs,
            spec,
            topics=len(self.classes),
            last=last,
            reduce=reduce,
            untouched=idle,
        )
        record = context.record
        classroom.reduce, classroom.join = reduce, join
        if classroom.method.needs.mentors > 0 and len(classroom.mentors):
            record.watch = Watch(classroom.mentors.names, classroom.task, runtime.device, reduce, join)
        classroom.mentors.watch, not_finite = record.watch, self._not_finite(context)
        classroom.epochs = float(spec.epochs)
        classroom.clock.quiet = True  # what there is to say of it, the recipe's notes say
        rate = learning_rate(spec)
        self._open_epoch(0)
        cost = Cost(probe(context, next(batches.epoch(0))) if self.measure else {}, classroom.mentors.store)
        scale = measure(context, next(batches.epoch(0))) if self.measure else None
        if record.watch is not None:
            record.watch.clear()  # what was only tried
        if self.told and (said := loud(scale)):
            self.notify({"event": "note", "text": f"{self.told}: {said}"})
        first, skip, lines = self._resume(context, cost) if resume else (0, 0, None)
        course, kept = self._course, self.folder if runtime.is_zero else None
        log = course.log = open_log(kept, classroom.steps if resume else 0, lines, self.notify)
        course.saved = since = time.perf_counter()
        started, waited = since - course.spent, 0.0

        def flush(epoch: float) -> None:
            nonlocal waited, since
            interval = record.flush()
            not_finite.mentors(interval["not_finite"], epoch)
            not_finite.terms(interval["bad"], epoch)
            now = time.perf_counter()
            line = {
                "kind": "train",
                "step": classroom.steps,
                "epoch": round(epoch, 4),
                **{k: interval[k] for k in ("loss", "terms", "mentors")},
                "lr": context.raw_optimizer.param_groups[0]["lr"],
                "seconds": round(now - started, 3),
                "data_wait": round(waited / max(now - since, 1e-9), 4),
                "x_floor": cost.interval(),
            }
            waited, since = 0.0, now
            log(line)
            self.notify({"event": "step", "epochs": spec.epochs, **line})

        classroom.train()
        kind: str | None = "first step"  # which may compile
        ranks = runtime.ranks
        for epoch in range(first, spec.epochs):
            ranks.move("opening an epoch")
            self._open_epoch(epoch)
            ranks.move(kind)
            asked = time.perf_counter()
            for i, batch in enumerate(batches.epoch(epoch, skip), skip):
                waited += time.perf_counter() - asked
                at = classroom.epoch = epoch + i / len(batches)
                for group in context.raw_optimizer.param_groups:
                    group["lr"] = rate(at)
                context.group = min(spec.accumulate, len(batches) - i // spec.accumulate * spec.accumulate)
                ranks.move(kind)
                context.teach(batch)
                kind = None
                cost.count(len(batch["ids"]))
                if classroom.steps % spec.log_every == 0:
                    flush(epoch + (i + 1) / len(batches))
                ranks.move()
                asked = time.perf_counter()
                course.spent = asked - started
                if context.waiting == 0:
                    self._pause(context, epoch, i + 1, len(batches), cost)
            ranks.move("after an epoch")  # scores and checkpoints
            done, skip = epoch + 1, 0
            if record.steps:
                flush(float(done))
            if self.val is not None and (done % spec.eval_every == 0 or done == spec.epochs):
                try:
                    self._validate(context, done, log)
                except stopping.Asked as wish:  # nothing has come of it: it is done again
                    self._stop_at(context, epoch, len(batches), len(batches), cost, wish.number)
            course.spent = time.perf_counter() - started
            stop = runtime.any((signal := self.asked()) is not None)
            if stop or done % spec.checkpoint_every == 0 or done == spec.epochs:
                self._checkpoint(context, done, cost)
            self.notify({"event": "epoch", "epoch": done, "epochs": spec.epochs, "seconds": course.spent})
            if stop:
                self._leave(signal, float(done))
        names = classroom.mentors.names
        ema = context.averaged.module.state_dict() if context.averaged is not None else None
        return Result(
            self._course.history,
            self._course.best[1],
            self._course.best_weights,
            ema,
            record.teaching(names, self.classes),
            classroom.steps,
            self._course.spent,
            cost.whole(),
            scale,
            record.watch.total if record.watch is not None else {},
            batches.dropped,
        )

    def _open_epoch(self, epoch: int) -> None:
        """Tell the bank which of the fixed views an epoch shows, and which come next: in two rounds each comes up."""
        bank, views = self.classroom.mentors.store, self.views
        if isinstance(bank, Bank) and isinstance(views, FixedViews):
            assert views.count is not None
            last = min(epoch + 2 * views.count, self.spec.epochs)
            bank.begin(*(views.slot(self.seed, e) for e in range(epoch, last)))

    def _validate(self, context: StepRunner, epoch: int, log: Notify) -> None:
        assert self.val is not None
        student, size, val = self.classroom.student, self.spec.eval_batch_size, self.val

        def scored(network: nn.Module) -> Score:
            if self.evaluate_fn is None:
                return evaluate(network, val, self.inputs, len(self.classes), size)
            return self.evaluate_fn(network, val, self.inputs, size)

        # Ranks must stop together, so they wait for one another's scores.
        with stopping.impatient(self.runtime.world == 1), self.runtime.autocast():
            score = scored(student)
            line = {"kind": "val", "step": self.classroom.steps, "epoch": epoch}
            line |= {"accuracy": score.accuracy, "loss": score.loss}
            if context.averaged is not None:
                line["ema_accuracy"] = scored(context.averaged.module).accuracy
        self._course.history.append(score)
        if score.accuracy > self._course.best[0]:
            self._course.best = (score.accuracy, epoch)
            self._course.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in student.state_dict().items()}
        log(line)
        self.notify({"event": "val", **line, "best_epoch": self._course.best[1]})

    def _not_finite(self, context: StepRunner) -> NotFinite:
        return NotFinite(self.classroom, context.record.watch, self.folder, self.notify, self.on_bad_mentor)

    def _pause(self, context: StepRunner, epoch: int, batch: int, batches: int, cost: Cost) -> None:
        """Write a checkpoint within an epoch where one is due, and stop where that was asked; on all ranks alike."""
        minutes, signal = self.spec.checkpoint_minutes, self.asked()
        late = minutes is not None and time.perf_counter() - self._course.saved >= 60 * minutes
        if not self.runtime.any(signal is not None or (late and self.runtime.is_zero)):
            return
        self.runtime.ranks.move("checkpoint")
        if self.runtime.any(signal is not None):
            self._stop_at(context, epoch, batch, batches, cost, signal)
        self._checkpoint(context, epoch, cost, batch)

    def _stop_at(
        self, context: StepRunner, epoch: int, batch: int, batches: int, cost: Cost, signal: int | None
    ) -> NoReturn:
        self._checkpoint(context, epoch, cost, batch)
        self._leave(signal, epoch + batch / batches)

    def _leave(self, signal: int | None, epoch: float) -> NoReturn:
        """Raise for a signal, when everybody's work is written."""
        self.runtime.barrier()
        kept = "; a checkpoint was written" if self.folder is not None else ""
        raise stopping.told(signal, f" at epoch {epoch:.2f}, step {self.classroom.steps}{kept}")

    def _checkpoint(self, context: StepRunner, epoch: int, cost: Cost, batch: int = 0) -> None:
        """Keep the state after ``epoch`` whole epochs and ``batch`` batches of the next.

        After the last epoch only what the files of a finished network are made of.
        """
        if self.folder is None:
            return
        course = self._course
        finite = [p.isfinite().all() for p in self.classroom.parameters() if p.is_floating_point()]
        if finite and self.runtime.any(not bool(torch.stack(finite).all())):
            self._not_finite(context).terms(["weights"], epoch)
        self._not_finite(context).terms(context.record.bad_terms(), epoch)
        record = context.record.state()
        course.saved = time.perf_counter()
        if self.runtime.is_zero:
            last = self.folder / "checkpoints" / "last.pt"
            checkpoint.save(last, course.state(context, cost, record, epoch, batch, ended=epoch == self.spec.epochs))

    def _resume(self, context: StepRunner, cost: Cost) -> tuple[int, int, int | None]:
        """Take up the last checkpoint: whole epochs, batches of the next, and lines of the log that are done."""
        path = self.folder / "checkpoints" / "last.pt" if self.folder is not None else None
        if path is None or not path.exists():
            return 0, 0, None
        return self._course.restore(checkpoint.load(path), context, cost)
