"""What a training is given, and what its steps work with, put together from that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from classroomkd.bank import Bank
from classroomkd.classroom import Classroom
from classroomkd.classroom.preparing import look
from classroomkd.data import FixedViews
from classroomkd.train import checkpoint, stopping
from classroomkd.train.ema import too_slow
from classroomkd.train.gradient_scale import Scale, loud, measure
from classroomkd.train.inputs import Batches, Inputs, left_out, updates
from classroomkd.train.memory_format import settle
from classroomkd.train.metrics_log import open_log
from classroomkd.train.not_finite import NotFinite, advice
from classroomkd.train.optim import learning_rate
from classroomkd.train.peers import Apart, Join
from classroomkd.train.progress import Progress
from classroomkd.train.runtime import Runtime
from classroomkd.train.scoring import Score
from classroomkd.train.step_context import step_context
from classroomkd.train.step_cost import Cost, probe
from classroomkd.train.timer import Timer

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import TrainSpec

__all__ = ["Notify", "Prepared"]

Notify = Callable[[dict[str, Any]], None]
EvaluateFn = Callable[[nn.Module, "Part", Inputs, int], Score]


def _silent(event: dict[str, Any]) -> None:
    pass


@dataclass
class Prepared:
    """A training before its first step.

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
        label: what sentences for the user call this training; empty: what is said once for all seeds is left out.
        section: of the recipe that says how it is trained, for messages.
        on_bad_mentor: what to do where a mentor's answer is not finite: leave it out, or stop.
        evaluate_fn: scores a network on a part; None: accuracy by class.
        extra_sizes: (H, W) at which mentors want the views drawn, beside the student's own.
        size: (H, W) at which the network that is trained wants them; None: the data's.
        asked: the signal that asks to stop, or None; looked at after each update.
        higher_is_better: whether a higher score is a better one.
        chooses: whether scores on the validation part say which epoch is the best.
        peers: how the student's peers are trained, by name, where it is not as the student.
        together: of several networks' answers (M, N, …) one; None: trainees are not scored as an ensemble.
        apart: of these the share of pairs that do not say the same, (N,); None: nobody asks.
        goes_on: whether a later training goes on with what the method learned: the last checkpoint keeps it.
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
    label: str = ""
    section: str = "train"
    on_bad_mentor: Literal["skip", "stop"] = "skip"
    evaluate_fn: EvaluateFn | None = None
    extra_sizes: Sequence[tuple[int, int]] = ()
    size: tuple[int, int] | None = None
    asked: Callable[[], int | None] = stopping.asked
    higher_is_better: bool = True
    chooses: bool = True
    peers: Mapping[str, TrainSpec] = field(default_factory=dict)
    together: Join | None = None
    apart: Apart | None = None
    goes_on: bool = False
    progress: Progress = field(init=False)
    looked: float = field(default=0.0, init=False)  # seconds of the method's look

    def build(self, resume: bool) -> None:
        """Put together what the steps work with: the batches' order, the student's layout, optimiser, record."""
        spec, runtime, classroom = self.spec, self.runtime, self.classroom
        self.batches = batches = Batches(
            self.part,
            self.views,
            spec.batch_size,
            self.seed,
            drop_last=None if spec.drop_last == "auto" else bool(spec.drop_last),
            whole_batch=classroom.method.needs.whole_batch,
            ratio=spec.unlabelled_ratio,
            rank=runtime.rank,
            world=runtime.world,
            sizes=self.extra_sizes,
            size=self.size,
            shown=classroom.method.needs.views,
            device=runtime.device,
        )
        self.progress = Progress(spec.epochs, len(batches), self.higher_is_better, self.chooses)
        note = left_out(batches.dropped, len(self.part), spec)
        if runtime.is_zero and note is not None:
            self.notify({"event": "note", "text": note})
        if self.label and (note := too_slow(spec.ema, updates(len(batches), spec))):
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
            example=self._first_inputs,
            peers=self.peers,
        )
        for peer in self.runner.peers.values():
            peer.scores = Progress(spec.epochs, len(batches), self.higher_is_better, self.chooses)
        self.record = self.runner.record
        self.rate = learning_rate(spec)
        self.not_finite = NotFinite(
            self.progress,
            self.record.watch,
            self.folder,
            self.notify,
            self.on_bad_mentor,
            advice(spec, self.section),
            tuple(self.runner.peers),
        )

    def _first_inputs(self) -> torch.Tensor:
        pixels = next(self.batches.epoch(0))["pixels"]
        return self.inputs(pixels if self.batches.shown == 1 else pixels[0])

    def look(self) -> None:
        """The method's look at training samples before the first step, where it needs one.

        The samples and their views are those of the seed, so a training that goes on looks again and finds the same;
        what its checkpoint holds counts. Every rank sees all samples, and has what the first one found.
        """
        method, began = self.classroom.method, time.perf_counter()
        if not method.needs.prepare:
            return
        self.runtime.ranks.move("the look before training")
        self.open_views(0)
        look(self.classroom, self.batches.spread(method.needs.prepare), self.runner.aside)
        for buffer in method.buffers():
            buffer.copy_(self.runtime.first(buffer))
        self.looked = time.perf_counter() - began

    def rehearse(self) -> Scale | None:
        """What a step costs beside the student's own, and how loud the mentors are; without a trace."""
        self.open_views(0)
        measured, scale = {}, None
        if self.measure:
            measured = probe(self.runner, next(self.batches.epoch(0)))
            scale = measure(self.runner, next(self.batches.epoch(0)))
        self.cost = Cost(measured, self.classroom.mentors.store)
        if self.record.watch is not None:
            self.record.watch.clear()  # what was only tried
        if self.label and (sentence := loud(scale)):
            self.notify({"event": "note", "text": f"{self.label}: {sentence}"})
        return scale

    def begin(self, resume: bool) -> None:
        """Take up the last checkpoint where there is one, and open the log behind what it has counted."""
        self.timer = Timer(self.looked)
        if resume and self.state is not None:
            self.runtime.barrier()  # nobody removes a damaged one while another reads
            self.state.restore(self.runtime.is_zero, self.notify)
        kept = self.folder if self.runtime.is_zero else None
        self.log = open_log(kept, self.progress.step, self.progress.lines, self.notify)
        if self.progress.step == 0 and (findings := self.classroom.method.findings()):
            seconds = round(self.looked, 3)
            self.log({"kind": "look", "step": 0, "epoch": 0, "findings": dict(findings), "seconds": seconds})

    @property
    def state(self) -> checkpoint.Checkpoint | None:
        """The components that make up the state of the training, and their file."""
        if self.folder is None:
            return None
        components = {**self.runner.components(), "cost": self.cost, "timer": self.timer}
        return checkpoint.Checkpoint(self.folder / "checkpoints" / "last.pt", components)

    def open_views(self, epoch: int) -> None:
        """Tell the bank which of the fixed views an epoch shows, and which come next: in two rounds each comes up."""
        bank, views = self.classroom.mentors.store, self.views
        if isinstance(bank, Bank) and isinstance(views, FixedViews):
            assert views.count is not None
            last = min(epoch + 2 * views.count, self.spec.epochs)
            bank.begin(*(views.slot(self.seed, e) for e in range(epoch, last)))
