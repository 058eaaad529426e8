"""The training loop: one network, one method, one seed; killed anywhere it resumes to the same weights.

:meth:`Training.train` goes over epochs and batches, :meth:`Training.step` over one batch, and the method's own ``step``
says what happens with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import nn

from classroomkd.bank import Bank
from classroomkd.classroom import Batch, Classroom
from classroomkd.data import FixedViews
from classroomkd.train import checkpoint, stopping
from classroomkd.train.gradient_scale import Scale, loud, measure
from classroomkd.train.inputs import Batches, Inputs, left_out
from classroomkd.train.learner import untouched
from classroomkd.train.memory_format import settle
from classroomkd.train.metrics_log import open_log
from classroomkd.train.not_finite import NotFinite
from classroomkd.train.optim import learning_rate, set_learning_rate
from classroomkd.train.progress import Progress
from classroomkd.train.result import Result
from classroomkd.train.runtime import Runtime
from classroomkd.train.scoring import Score, evaluate
from classroomkd.train.step_context import step_context
from classroomkd.train.step_cost import Cost, probe
from classroomkd.train.timer import Timer

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import TrainSpec

__all__ = ["Notify", "Result", "Training"]

Notify = Callable[[dict[str, Any]], None]
EvaluateFn = Callable[[nn.Module, "Part", Inputs, int], Score]
ONLY_FOR_TRAINING = ("method", "optimizer")  # components that are of no use once a training has ended


def _silent(event: dict[str, Any]) -> None:
    pass


@dataclass
class Training:
    """One training.

    Args:
        classroom: student, mentors and method, on the runtime's device.
        part, val: of the data, to train on and to select the best epoch by (never the test part).
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
        higher_is_better: whether a higher score is a better one.
    """

    runtime: Runtime
    classroom: Classroom
    part: Part
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
    higher_is_better: bool = True
    progress: Progress = field(init=False)

    def run(self, resume: bool = False) -> Result:
        """Train to the last epoch.

        Raises:
            RunStopped: a loss that is not finite (names the term); the last good checkpoint is kept.
            Interrupted, KeyboardInterrupt: a signal; the update was finished and a checkpoint written.
        """
        with stopping.patient():
            self._build(resume)
            scale = self._measure()
            self._begin(resume)
            self.train()
            return self._result(scale)

    def train(self) -> None:
        """From where the training stands to its last epoch."""
        progress, ranks = self.progress, self.runtime.ranks
        self.classroom.train()
        phase: str | None = "first step"  # which may compile
        while progress.epoch < self.spec.epochs:
            ranks.move("opening an epoch")
            self._open_views(progress.epoch)
            ranks.move(phase)
            for batch in self.timer.waiting(self.batches.epoch(progress.epoch, progress.batch)):
                ranks.move(phase)
                self.step(batch)
                phase = None
                ranks.move()
                if self.runner.accumulated == 0:
                    self._pause()
            ranks.move("after an epoch")  # scores and checkpoints
            self._close_epoch()

    def step(self, batch: Batch) -> None:
        """One batch: the learning rate, the method's step (answers, loss, gradients, update), and what is counted."""
        progress = self.progress
        set_learning_rate(self.runner.raw_optimizer, self._rate(progress.position))
        self.runner.step(batch)
        progress.batch += 1
        self.cost.count(len(batch["ids"]))
        if progress.step % self.spec.log_every == 0:
            self._flush()

    def _close_epoch(self) -> None:
        """Score the student where that is due, and keep the state."""
        progress, spec, done = self.progress, self.spec, self.progress.epoch + 1
        if self.record.steps:
            self._flush()
        if self.val is not None and (done % spec.eval_every == 0 or done == spec.epochs):
            try:
                self._validate(done)
            except stopping.Asked as wish:  # nothing has come of it: it is done again
                self._stop(wish.number)
        progress.epoch, progress.batch = done, 0
        signal = self.asked()
        stop = self.runtime.any(signal is not None)
        if stop or done % spec.checkpoint_every == 0 or done == spec.epochs:
            self._checkpoint()
        self.notify({"event": "epoch", "epoch": done, "epochs": spec.epochs, "seconds": self.timer.seconds})
        if stop:
            self._leave(signal)

    def _pause(self) -> None:
        """Write a checkpoint within an epoch where one is due, and stop where that was asked; on all ranks alike."""
        minutes, signal = self.spec.checkpoint_minutes, self.asked()
        late = minutes is not None and time.perf_counter() - self.timer.saved >= 60 * minutes
        if not self.runtime.any(signal is not None or (late and self.runtime.is_zero)):
            return
        self.runtime.ranks.move("checkpoint")
        if self.runtime.any(signal is not None):
            self._stop(signal)
        self._checkpoint()

    def _flush(self) -> None:
        """Read what the steps since the last time gave, into ``metrics.jsonl``; stop where something is not finite."""
        interval = self.record.flush()
        self._not_finite.mentors(interval["not_finite"])
        self._not_finite.terms(interval["bad"])
        line = {
            "kind": "train",
            "step": self.progress.step,
            "epoch": round(self.progress.position, 4),
            **{k: interval[k] for k in ("loss", "terms", "mentors")},
            "lr": self.runner.raw_optimizer.param_groups[0]["lr"],
            "seconds": round(self.timer.seconds, 3),
            "data_wait": round(self.timer.share_waited(), 4),
            "x_floor": self.cost.interval(),
        }
        self._log(line)
        self.notify({"event": "step", "epochs": self.spec.epochs, **line})

    def _validate(self, epoch: int) -> None:
        assert self.val is not None
        student, averaged = self.classroom.student, self.runner.averaged
        scored = self.evaluate_fn or partial(_accuracy, classes=len(self.classes))
        ask = (self.val, self.inputs, self.spec.eval_batch_size)
        # Ranks must stop together, so they wait for one another's scores.
        with stopping.impatient(self.runtime.world == 1), self.runtime.autocast():
            score = scored(student, *ask)
            line = {"kind": "val", "step": self.progress.step, "epoch": epoch}
            line |= {"accuracy": score.value, "loss": score.loss}
            if averaged is not None:
                line["ema_accuracy"] = scored(averaged.module, *ask).value
        self.progress.score(score, epoch, student.state_dict())
        self._log(line)
        self.notify({"event": "val", **line, "best_epoch": self.progress.best[1]})

    def _log(self, line: dict[str, Any]) -> None:
        self.log(line)
        self.progress.lines = self.log.lines

    # --- before and after ---------------------------------------------------------------------------------------------

    def _build(self, resume: bool) -> None:
        """Put together what the steps work with: the batches' order, the student's layout, optimiser, record."""
        spec, runtime, classroom = self.spec, self.runtime, self.classroom
        self.batches = batches = Batches(
            self.part,
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
        self.progress = Progress(spec.epochs, len(batches), self.higher_is_better)
        note = left_out(batches.dropped, len(self.part), spec)
        if runtime.is_zero and note is not None:
            self.notify({"event": "note", "text": note})
        torch.manual_seed(self.seed + 7919)
        last = bool(spec.channels_last)
        if spec.channels_last == "auto":
            last = settle(classroom.student, self._first_inputs(), runtime, self.folder, resume)
            self.inputs = Inputs(self.inputs.mean, self.inputs.std, self.inputs.device, last)
        self.runner = step_context(
            runtime,
            classroom,
            self.inputs,
            spec,
            topics=len(self.classes),
            last=last,
            progress=self.progress,
            untouched=untouched(classroom, self._first_inputs()) if runtime.world > 1 else (),
        )
        self.record = self.runner.record
        self._rate = learning_rate(spec)
        self._not_finite = NotFinite(self.progress, self.record.watch, self.folder, self.notify, self.on_bad_mentor)

    def _first_inputs(self) -> torch.Tensor:
        return self.inputs(next(self.batches.epoch(0))["pixels"])

    def _measure(self) -> Scale | None:
        """What a step costs beside the student's own, and how loud the mentors are; without a trace."""
        self._open_views(0)
        measured, scale = {}, None
        if self.measure:
            measured = probe(self.runner, next(self.batches.epoch(0)))
            scale = measure(self.runner, next(self.batches.epoch(0)))
        self.cost = Cost(measured, self.classroom.mentors.store)
        if self.record.watch is not None:
            self.record.watch.clear()  # what was only tried
        if self.told and (sentence := loud(scale)):
            self.notify({"event": "note", "text": f"{self.told}: {sentence}"})
        return scale

    def _begin(self, resume: bool) -> None:
        """Take up the last checkpoint where there is one, and open the log behind what it has counted."""
        self.timer = Timer()
        if resume and self._state is not None:
            self._state.restore()
        kept = self.folder if self.runtime.is_zero else None
        self.log = open_log(kept, self.progress.step, self.progress.lines, self.notify)

    @property
    def _state(self) -> checkpoint.Checkpoint | None:
        """The components that make up the state of the training, and their file."""
        if self.folder is None:
            return None
        components = {**self.runner.components(), "cost": self.cost, "timer": self.timer}
        return checkpoint.Checkpoint(self.folder / "checkpoints" / "last.pt", components)

    def _checkpoint(self) -> None:
        """Keep the state; after the last epoch only what the files of a finished network are made of."""
        self.timer.note()
        if (kept := self._state) is None:
            return
        finite = [p.isfinite().all() for p in self.classroom.parameters() if p.is_floating_point()]
        if finite and self.runtime.any(not bool(torch.stack(finite).all())):
            self._not_finite.terms(["weights"])
        self._not_finite.terms(self.record.bad_terms())
        self.progress.lines = self.log.stored()
        state = kept.state(ONLY_FOR_TRAINING if self.progress.epoch == self.spec.epochs else ())
        self.timer.saved = time.perf_counter()
        if self.runtime.is_zero:
            checkpoint.save(kept.path, state)

    def _stop(self, signal: int | None) -> NoReturn:
        self._checkpoint()
        self._leave(signal)

    def _leave(self, signal: int | None) -> NoReturn:
        """Raise for a signal, when everybody's work is written."""
        self.runtime.barrier()
        kept = "; a checkpoint was written" if self.folder is not None else ""
        raise stopping.told(signal, f" at epoch {self.progress.position:.2f}, step {self.progress.step}{kept}")

    def _open_views(self, epoch: int) -> None:
        """Tell the bank which of the fixed views an epoch shows, and which come next: in two rounds each comes up."""
        bank, views = self.classroom.mentors.store, self.views
        if isinstance(bank, Bank) and isinstance(views, FixedViews):
            assert views.count is not None
            last = min(epoch + 2 * views.count, self.spec.epochs)
            bank.begin(*(views.slot(self.seed, e) for e in range(epoch, last)))

    def _result(self, scale: Scale | None) -> Result:
        progress, averaged, watch = self.progress, self.runner.averaged, self.record.watch
        return Result(
            progress.history,
            progress.best[1],
            progress.best_weights,
            averaged.module.state_dict() if averaged is not None else None,
            self.record.teaching(self.classroom.mentors.names, self.classes),
            progress.step,
            self.timer.spent,
            self.cost.whole(),
            scale,
            watch.total if watch is not None else {},
            self.batches.dropped,
            progress.best[0] if progress.best[1] >= 0 else None,
        )


def _accuracy(network: nn.Module, part: Part, inputs: Inputs, size: int, *, classes: int) -> Score:
    return evaluate(network, part, inputs, classes, size)
