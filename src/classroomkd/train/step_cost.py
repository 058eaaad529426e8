"""What a step costs over the student alone, measured on the spot and without a trace in the run.

Where the bank fills while a student trains, a step costs one thing when all answers are stored and another when the
mentors give them. Both are measured once; which share of each a training had is counted.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from classroomkd.bank import FillOnMissCache, RowStore
from classroomkd.classroom import Batch, Method
from classroomkd.classroom.pool import AnswerStore
from classroomkd.train import checkpoint

if TYPE_CHECKING:
    from classroomkd.train.step import StepRunner

__all__ = ["Cost", "probe", "rehearsed", "undone"]

ENOUGH = 10.0  # seconds after which a round that is measured is the last


def probe(context: StepRunner, batch: Batch, rounds: int = 7, enough: float | None = None) -> dict[str, float]:
    """Time the method's forward and backward against the student's own, interleaved, then put everything back.

    A method's own update after the step (a meta step every few) counts with its share. The optimiser's update is
    common to both and left out, so the ratio is an upper bound. With one thread on a CPU the
    clock is the process's CPU time, which does not see other programs; otherwise the wall, after synchronising.
    Under ranks both go through DDP and exchange the same gradients, and the first rank's figure is shown.

    Args:
        context: of the steps.
        batch: that they take.
        rounds: at most.
        enough: seconds after which the round that runs is the last, the warm-up included, which then counts.

    Returns:
        ``{"step_ms", "floor_ms", "cost_ratio"}``: medians over the rounds after one of warm-up, and their ratio; for
        the student alone the ratio is 1 by definition. Of steps that take seconds fewer rounds are measured, one at
        least. With a bank that fills while the student trains this is a step whose answers are all stored, and
        ``asked_ms`` one where the mentors give them all.
    """
    from classroomkd.methods.none import Alone

    runtime, method, store = context.runtime, context.classroom.method, context.classroom.mentors.store
    on_cpu = runtime.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if on_cpu else time.perf_counter
    kinds: dict[str, tuple[Method, AnswerStore | None]] = {"floor_ms": (Alone(), None), "step_ms": (method, store)}
    if isinstance(store, FillOnMissCache):
        kinds["step_ms"] = method, rehearsed(store, stored=True)
        kinds["asked_ms"] = method, rehearsed(store, stored=False)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with undone(context):
        context.train()
        began = time.perf_counter()
        for i in range(max(rounds // method.period, 2) + 1):
            for kind, (taught_by, answered_from) in kinds.items():
                repeat = 1 if kind == "floor_ms" else method.period
                with context.classroom.rehearsal(taught_by, answered_from):
                    runtime.synchronize()
                    start = clock()
                    for _ in range(repeat):
                        _pass(context, taught_by, batch)
                    runtime.synchronize()
                    took = clock() - start
                times[kind][:] = [*times[kind], took / repeat] if i > 1 else [took / repeat]
            limit = ENOUGH if enough is None else enough
            if (i or enough is not None) and runtime.any(time.perf_counter() - began > limit):  # ranks stop together
                break
    milliseconds = {kind: 1000 * statistics.median(taken) for kind, taken in times.items()}
    if isinstance(method, Alone):
        milliseconds["step_ms"] = milliseconds["floor_ms"]
    return {**milliseconds, "cost_ratio": milliseconds["step_ms"] / milliseconds["floor_ms"]}


def _pass(context: StepRunner, method: Method, batch: Batch) -> None:
    """Lesson, terms and backward by a method and what it does after a step, without the student's update."""
    if context.classroom.learning and method.has_own_step:
        method.step(context, batch)
        context.progress.step += 1
        return
    lesson = context.lesson(batch)
    lesson.conclude(method(lesson))
    context.backward(lesson.loss)
    method.after_step(context, lesson)
    context.progress.step += 1


@contextmanager
def undone(context: StepRunner) -> Iterator[None]:
    """Inside, steps can be tried; afterwards weights, buffers, gradients, generators and counts are as before."""
    learner, device, progress = context.learner, context.runtime.device, context.progress
    saved, rng = copy.deepcopy(learner.state_dict()), checkpoint.rng_state(device)
    averaged = context.classroom.averaged
    means = None if averaged is None else copy.deepcopy(averaged.state_dict())
    step, training = progress.step, context.classroom.training
    context.trying = True
    try:
        yield
    finally:
        context.trying = False
        context.optimizer.zero_grad(set_to_none=True)
        for peer in context.peers.values():
            peer.optimizer.zero_grad(set_to_none=True)
        learner.load_state_dict(saved)
        if averaged is not None and means is not None:
            averaged.load_state_dict(means)
        checkpoint.set_rng_state(rng, device)
        progress.step = step
        context.train(training)


def rehearsed(bank: FillOnMissCache, stored: bool | None) -> FillOnMissCache:
    """The bank as it is (None), or as if it held every answer or none: it reads as the real one does, writes nothing
    and counts apart."""
    copied = copy.copy(bank)
    copied.asked = [0] * len(bank.asked)
    copied.stores = [{kind: cast(RowStore, _Rows(store, stored)) for kind, store in row.items()} for row in bank.stores]
    return copied


class _Rows:
    """Rows of a store as they are (``stored`` None), or all of them there or none."""

    writable = False

    def __init__(self, store: RowStore, stored: bool | None) -> None:
        self._store, self._stored, self.codec = store, stored, store.codec

    def read(self, views: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        values, ok = self._store.read(views, positions)
        if self._stored is None:
            return values, ok
        if not bool(ok.all()):
            values[~ok] = 0.0
        return values, torch.full_like(ok, self._stored)


class Cost:
    """A step's cost over the student alone, by the share of the questions that the mentors themselves answered.

    Args:
        measured: by :func:`probe`; empty where nothing was.
        store: of the mentors' answers; only one that fills while the student trains changes what was measured.
    """

    def __init__(self, measured: dict[str, float], store: AnswerStore | None) -> None:
        self._measured, self._bank = dict(measured), store if isinstance(store, FillOnMissCache) else None
        self._questions, self._before = 0, (0, 0)

    def count(self, samples: int) -> None:
        """A batch was taught: all mentors were asked about its samples."""
        if self._bank is not None:
            self._questions += samples * len(self._bank.asked)

    def interval(self) -> float | None:
        """The ratio since the last call; None where nothing was measured."""
        now = self._counted()
        questions, answered = (n - before for n, before in zip(now, self._before, strict=True))
        self._before = now
        return self._at(answered / max(questions, 1)).get("cost_ratio")

    def whole(self) -> dict[str, float]:
        """``{"step_ms", "floor_ms", "cost_ratio"}`` of the mean step of the training so far."""
        questions, answered = self._counted()
        return self._at(answered / max(questions, 1))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        asked = self._bank.asked if self._bank is not None else []
        return {**self._measured, "questions": self._questions, "asked": list(asked), "before": list(self._before)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's figures and counts."""
        counted = {"questions", "asked", "before"}
        self._measured.update({key: value for key, value in state.items() if key not in counted})
        self._questions = int(state.get("questions", 0))
        if self._bank is not None and state.get("asked"):
            self._bank.asked = list(state["asked"])
        questions, answered = state.get("before") or self._counted()
        self._before = (int(questions), int(answered))

    def _counted(self) -> tuple[int, int]:
        """Questions put so far, and how many of them the mentors answered."""
        return self._questions, sum(self._bank.asked) if self._bank is not None else 0

    def _at(self, share: float) -> dict[str, float]:
        cost: dict[str, float] = {
            key: self._measured[key] for key in ("step_ms", "floor_ms", "cost_ratio") if key in self._measured
        }
        if "asked_ms" in self._measured and cost:
            cost["step_ms"] += share * (self._measured["asked_ms"] - cost["step_ms"])
            cost["cost_ratio"] = cost["step_ms"] / cost["floor_ms"]
        return cost
