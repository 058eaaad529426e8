"""The training loop: one network, one method, one seed; killed anywhere it resumes to the same weights.

:meth:`Training.train` goes over epochs and batches, :meth:`Training.step` over one batch, and the method's own ``step``
says what happens with it. What they work with is put together in :mod:`classroomkd.train.prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn

from classroomkd.classroom import Batch
from classroomkd.classroom.trainees import STUDENT
from classroomkd.train import checkpoint, stopping
from classroomkd.train.gradient_scale import Scale
from classroomkd.train.inputs import Inputs
from classroomkd.train.optim import set_learning_rate, whole_rate
from classroomkd.train.peers import Head, Together
from classroomkd.train.prepare import Notify, Prepared
from classroomkd.train.result import Result
from classroomkd.train.scoring import Score, evaluate

if TYPE_CHECKING:
    from classroomkd.data import Part

__all__ = ["Notify", "Result", "Training"]

ONLY_FOR_TRAINING = ("method", "optimizer")  # last words of components that are of no use once a training has ended


class Training(Prepared):
    """One training; its arguments are those of :class:`.prepare.Prepared`."""

    def run(self, resume: bool = False) -> Result:
        """Train to the last epoch.

        Raises:
            Diverged: a loss that is not finite (names the term); the last good checkpoint is kept.
            RunStopped: the same, and a mentor's answers are the reason.
            Interrupted, KeyboardInterrupt: a signal; the update was finished and a checkpoint written.
        """
        with stopping.patient():
            self.build(resume)
            self.look()
            scale = self.rehearse()
            self.begin(resume)
            self.train()
            return self._result(scale)

    def train(self) -> None:
        """From where the training stands to its last epoch."""
        progress, ranks = self.progress, self.runtime.ranks
        self.runner.train()
        phase: str | None = "first step"  # which may compile
        while progress.epoch < self.spec.epochs:
            ranks.move("opening an epoch")
            self.open_views(progress.epoch)
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
        set_learning_rate(self.runner.raw_optimizer, self.rate(progress.position))
        for peer in self.runner.peers.values():
            peer.set_rate(progress.position)
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
        self.not_finite.mentors(interval["not_finite"])
        self.not_finite.terms(interval["bad"])
        line = {
            "kind": "train",
            "step": self.progress.step,
            "epoch": round(self.progress.position, 4),
            **{k: interval[k] for k in ("loss", "terms", "mentors")},
            "lr": whole_rate(self.runner.raw_optimizer),
            "seconds": round(self.timer.seconds, 3),
            "data_wait": round(self.timer.share_waited(), 4),
            "x_floor": self.cost.interval(),
            **({"given": interval["given"]} if interval["given"] else {}),
        }
        self.log(line)
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
            if self.runner.peers:
                line |= self._validate_peers(epoch, lambda network: scored(network, *ask))
        self.progress.score(score, epoch, student.state_dict())
        self.log(line)
        self.notify({"event": "val", **line, "best_epoch": self.progress.best[1]})

    def _validate_peers(self, epoch: int, scored: Callable[[nn.Module], Score]) -> dict[str, Any]:
        """Score the peers, and the ensemble of the students where there is one; what a line of the log says of it."""
        peers = self.runner.peers
        found = {name: scored(peer.network) for name, peer in peers.items()}
        for name, peer in peers.items():
            peer.scores.score(found[name], epoch, peer.network.state_dict())
        line: dict[str, Any] = {"peers": {name: score.value for name, score in found.items()}}
        if self.together is not None and len(self.classroom.members) > 1:
            ensemble = Together(self.classroom.members, self.together, self.apart)
            line["ensemble"] = scored(ensemble).value
            if (apart := ensemble.disagreement()) is not None:
                line["disagreement"] = round(apart, 6)
        if self.classroom.method.has_head:
            line["head"] = scored(Head(self.classroom)).value
        return line

    def _checkpoint(self) -> None:
        """Keep the state; after the last epoch only what the files of a finished network are made of."""
        self.timer.note()
        if (kept := self.state) is None:
            return
        for name in (STUDENT, *self.runner.peers):
            weights = self.classroom.trained_with(name)
            finite = [p.isfinite().all() for p in weights if p.is_floating_point()]
            if finite and self.runtime.any(not bool(torch.stack(finite).all())):
                self.not_finite.terms(["weights" if name == STUDENT else f"{name}.weights"])
        self.not_finite.terms(self.record.bad_terms())
        self.progress.lines = self.log.stored()
        ended = self.progress.epoch == self.spec.epochs  # nothing is taught any more: this one is enough
        over = [part for part in ONLY_FOR_TRAINING if part != "method" or not self.goes_on] if ended else []
        state = kept.state(over)
        self.timer.saved = time.perf_counter()
        if self.runtime.is_zero:
            checkpoint.save(kept.path, state, 1 if ended else self.spec.keep_checkpoints)

    def _stop(self, signal: int | None) -> NoReturn:
        self._checkpoint()
        self._leave(signal)

    def _leave(self, signal: int | None) -> NoReturn:
        """Raise for a signal, when everybody's work is written."""
        self.runtime.barrier()
        kept = "; a checkpoint was written" if self.folder is not None else ""
        raise stopping.told(signal, f" at epoch {self.progress.position:.2f}, step {self.progress.step}{kept}")

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
            {name: peer.result() for name, peer in self.runner.peers.items()},
            dict(self.classroom.method.findings()),
        )


def _accuracy(network: nn.Module, part: Part, inputs: Inputs, size: int, *, classes: int) -> Score:
    return evaluate(network, part, inputs, classes, size)
