"""The training loop: one network, one method, one seed; killed anywhere it resumes to the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from classroomkd.bank import Bank
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews
from classroomkd.engine import checkpoint
from classroomkd.engine.context import EngineContext
from classroomkd.engine.floor import Cost, probe
from classroomkd.engine.inputs import Batches, Inputs
from classroomkd.engine.optim import learning_rate
from classroomkd.engine.record import open_log
from classroomkd.engine.runtime import Runtime
from classroomkd.engine.scales import Scale, loud, measure
from classroomkd.engine.scoring import Score, evaluate
from classroomkd.engine.step_context import step_context
from classroomkd.engine.student_layout import settle
from classroomkd.engine.watch import REMEDY, Found, Watch, sentence
from classroomkd.errors import RunStopped

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views import Views
    from classroomkd.recipe import TrainSpec

__all__ = ["Fit", "Notify", "Result"]

Notify = Callable[[dict[str, Any]], None]
Exam = Callable[[nn.Module, "Part", Inputs, int], Score]


def _silent(event: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Result:
    """What a finished training leaves; the student holds its last raw weights."""

    val: list[Score]
    best_epoch: int
    best: dict[str, torch.Tensor] | None
    ema: dict[str, torch.Tensor] | None
    teaching: dict[str, Any]
    steps: int
    seconds: float
    cost: dict[str, float]
    scale: Scale | None = None
    not_finite: Found = field(default_factory=dict)


@dataclass
class Fit:
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
        exam: scores a network on a part; None: accuracy by class.
        sights: (H, W) at which mentors want the views drawn, beside the student's own.
        size: (H, W) at which the network that is trained wants them; None: the data's.
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
    exam: Exam | None = None
    sights: Sequence[tuple[int, int]] = ()
    size: tuple[int, int] | None = None
    _history: list[Score] = field(default_factory=list)
    _best: tuple[float, int] = (-1.0, -1)
    _best_weights: dict[str, torch.Tensor] | None = None
    _spent: float = 0.0

    def run(self, resume: bool = False) -> Result:
        """Train to the last epoch.

        Raises:
            RunStopped: a loss that is not finite (names the term); the last good checkpoint is kept.
        """
        spec, runtime, classroom = self.spec, self.runtime, self.classroom
        batches = Batches(
            self.train,
            self.views,
            spec.batch_size,
            self.seed,
            drop_last=None if spec.drop_last == "auto" else bool(spec.drop_last),
            rank=runtime.rank,
            world=runtime.world,
            sizes=self.sights,
            size=self.size,
            device=runtime.device,
        )
        torch.manual_seed(self.seed + 7919)
        if spec.channels_last == "auto":
            first_pixels = self.inputs(next(batches.epoch(0))["pixels"])
            last = settle(classroom.student, first_pixels, runtime, self.folder, resume)
            self.inputs = Inputs(self.inputs.mean, self.inputs.std, self.inputs.device, last)
        else:
            last = spec.channels_last
        reduce, join = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
        context = step_context(
            runtime, classroom, self.inputs, spec, topics=len(self.classes), last=last, reduce=reduce
        )
        record = context.record
        classroom.reduce, classroom.join = reduce, join
        if classroom.method.needs.mentors > 0 and len(classroom.mentors):
            record.watch = Watch(classroom.mentors.names, classroom.task, runtime.device, reduce, join)
        classroom.mentors.watch = record.watch
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
        first = self._resume(context, cost) if resume else 0
        log = open_log(self.folder if runtime.is_zero else None, classroom.steps if resume else 0)
        started, waited, since = time.perf_counter(), 0.0, time.perf_counter()
        spent = self._spent

        def flush(epoch: float) -> None:
            nonlocal waited, since
            interval = record.flush()
            self._tell_of(interval["not_finite"], epoch)
            if interval["bad"]:
                self._stop(interval["bad"], epoch, record.watch)
            now = time.perf_counter()
            line = {
                "kind": "train",
                "step": classroom.steps,
                "epoch": round(epoch, 4),
                **{k: interval[k] for k in ("loss", "terms", "mentors")},
                "lr": context.raw_optimizer.param_groups[0]["lr"],
                "seconds": round(spent + now - started, 3),
                "data_wait": round(waited / max(now - since, 1e-9), 4),
                "x_floor": cost.interval(),
            }
            waited, since = 0.0, now
            log(line)
            self.notify({"event": "step", "epochs": spec.epochs, **line})

        classroom.train()
        for epoch in range(first, spec.epochs):
            self._open_epoch(epoch)
            asked = time.perf_counter()
            for i, batch in enumerate(batches.epoch(epoch)):
                waited += time.perf_counter() - asked
                at = classroom.epoch = epoch + i / len(batches)
                for group in context.raw_optimizer.param_groups:
                    group["lr"] = rate(at)
                context.group = min(spec.accumulate, len(batches) - i // spec.accumulate * spec.accumulate)
                context.teach(batch)
                cost.count(len(batch["ids"]))
                if classroom.steps % spec.log_every == 0:
                    flush(epoch + (i + 1) / len(batches))
                asked = time.perf_counter()
            done = epoch + 1
            if record.steps:
                flush(float(done))
            if self.val is not None and (done % spec.eval_every == 0 or done == spec.epochs):
                self._validate(context, done, log)
            self._spent = spent + time.perf_counter() - started
            if done % spec.checkpoint_every == 0 or done == spec.epochs:
                self._checkpoint(context, done, cost)
            self.notify({"event": "epoch", "epoch": done, "epochs": spec.epochs, "seconds": self._spent})
        names = classroom.mentors.names
        ema = context.averaged.module.state_dict() if context.averaged is not None else None
        return Result(
            self._history,
            self._best[1],
            self._best_weights,
            ema,
            record.teaching(names, self.classes),
            classroom.steps,
            self._spent,
            cost.whole(),
            scale,
            record.watch.total if record.watch is not None else {},
        )

    def _open_epoch(self, epoch: int) -> None:
        """Tell the bank which of the fixed views an epoch shows, and which come next: in two rounds each comes up."""
        bank, views = self.classroom.mentors.store, self.views
        if isinstance(bank, Bank) and isinstance(views, FixedViews):
            assert views.count is not None
            last = min(epoch + 2 * views.count, self.spec.epochs)
            bank.begin(*(views.slot(self.seed, e) for e in range(epoch, last)))

    def _validate(self, context: EngineContext, epoch: int, log: Notify) -> None:
        assert self.val is not None
        student, size, val = self.classroom.student, self.spec.eval_batch_size, self.val

        def scored(network: nn.Module) -> Score:
            if self.exam is None:
                return evaluate(network, val, self.inputs, len(self.classes), size)
            return self.exam(network, val, self.inputs, size)

        with self.runtime.autocast():
            score = scored(student)
            line = {"kind": "val", "step": self.classroom.steps, "epoch": epoch}
            line |= {"accuracy": score.accuracy, "loss": score.loss}
            if context.averaged is not None:
                line["ema_accuracy"] = scored(context.averaged.module).accuracy
        self._history.append(score)
        if score.accuracy > self._best[0]:
            self._best = (score.accuracy, epoch)
            self._best_weights = {k: v.detach().to("cpu", copy=True) for k, v in student.state_dict().items()}
        log(line)
        self.notify({"event": "val", **line, "best_epoch": self._best[1]})

    def _tell_of(self, not_finite: Found, epoch: float) -> None:
        """Mentors whose answers were not finite since the last flush: a note, or the end."""
        for name, found in not_finite.items():
            self.notify({"event": "not finite", "mentor": name, **found})
        if not_finite and self.on_bad_mentor == "stop":
            said = "; ".join(sentence(name, found) for name, found in not_finite.items())
            raise RunStopped(f"{self._stopped(epoch)}: {said}{self._kept()}. {REMEDY}")

    def _stopped(self, epoch: float) -> str:
        return f"training stopped at epoch {epoch:.2f}, step {self.classroom.steps}"

    def _kept(self) -> str:
        if self.folder is not None and (path := self.folder / "checkpoints" / "last.pt").exists():
            return f"; the last good checkpoint is kept at {path}"
        return ""

    def _stop(self, bad: list[str], epoch: float, watch: Watch | None) -> None:
        text = f"{self._stopped(epoch)}: the term '{bad[0]}' is not finite"
        if watch is not None and watch.total:  # then it is not the learning rate
            said = "; ".join(sentence(name, found) for name, found in watch.total.items())
            raise RunStopped(f"{text}, and {said}{self._kept()}. {REMEDY}")
        raise RunStopped(f"{text}{self._kept()}. Try a lower train.lr, train.clip=5, or train.precision=fp32")

    def _checkpoint(self, context: EngineContext, epoch: int, cost: Cost) -> None:
        if self.folder is None:
            return
        finite = [p.isfinite().all() for p in self.classroom.parameters() if p.is_floating_point()]
        if finite and not bool(torch.stack(finite).all()):
            self._stop(["weights"], epoch, context.record.watch)
        if not self.runtime.is_zero:
            return
        scaler = context.runtime.scaler
        state = {
            "epoch": epoch,
            "step": self.classroom.steps,
            "learner": context.learner.state_dict(),
            "optimizer": context.raw_optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "ema": context.averaged.state_dict() if context.averaged is not None else None,
            "record": context.record.state(),
            "rng": checkpoint.rng_state(self.runtime.device),
            "threads": torch.get_num_threads(),
            "best": list(self._best),
            "best_weights": self._best_weights,
            "history": [[s.accuracy, s.loss, s.samples, s.per_class] for s in self._history],
            "seconds": self._spent,
            "cost": cost.state(),
        }
        checkpoint.save(self.folder / "checkpoints" / "last.pt", state)

    def _resume(self, context: EngineContext, cost: Cost) -> int:
        path = self.folder / "checkpoints" / "last.pt" if self.folder is not None else None
        if path is None or not path.exists():
            return 0
        state = checkpoint.load(path)
        # A running sum's order depends on the number of threads; the same bits need the same number.
        torch.set_num_threads(state["threads"])
        context.learner.load_state_dict(state["learner"])
        context.raw_optimizer.load_state_dict(state["optimizer"])
        scaler = context.runtime.scaler
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        if context.averaged is not None and state["ema"] is not None:
            context.averaged.load_state_dict(state["ema"])
        context.record.restore(state["record"])
        checkpoint.set_rng_state(state["rng"], self.runtime.device)
        self.classroom.steps = state["step"]
        self._best, self._best_weights = (state["best"][0], int(state["best"][1])), state["best_weights"]
        self._history = [Score(a, loss, per_class, n) for a, loss, n, per_class in state["history"]]
        self._spent = state["seconds"]
        cost.restore(state["cost"])
        return int(state["epoch"])
