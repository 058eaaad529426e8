"""What a step costs over the student alone, measured on the spot and without a trace in the run."""

from __future__ import annotations

import copy
import statistics
import time
from typing import TYPE_CHECKING

import torch

from classroomkd.classroom import Batch, Lesson, Method
from classroomkd.engine import checkpoint

if TYPE_CHECKING:
    from classroomkd.engine.context import EngineContext

__all__ = ["probe"]

ENOUGH = 10.0  # seconds after which a round that is measured is the last


def probe(context: EngineContext, batch: Batch, rounds: int = 7) -> dict[str, float]:
    """Time the method's forward and backward against the student's own, interleaved, then put everything back.

    A method's own update after the step (a meta step every few) counts with its share. The optimiser's update is
    common to both and left out, so the ratio is an upper bound. With one thread on a CPU the
    clock is the process's CPU time, which does not see other programs; otherwise the wall, after synchronising.

    Returns:
        ``{"step_ms", "floor_ms", "cost_ratio"}``: medians over the rounds after one of warm-up, and their ratio; for
        the student alone the ratio is 1 by definition. Of steps that take seconds fewer rounds are measured, one at
        least.
    """
    from classroomkd.methods.none import Alone

    classroom, runtime = context.classroom, context.runtime
    saved = copy.deepcopy(context.learner.state_dict())
    rng = checkpoint.rng_state(runtime.device)
    on_cpu = runtime.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if on_cpu else time.perf_counter
    alone = Alone()
    taught: list[float] = []
    floor: list[float] = []
    forwards, steps, period = classroom.mentors.forwards, classroom.steps, classroom.method.period
    classroom.train()
    began = time.perf_counter()
    for i in range(max(rounds // period, 2) + 1):
        for method, times in ((alone, floor), (classroom.method, taught)):
            repeat = 1 if method is alone else period
            runtime.synchronize()
            start = clock()
            for _ in range(repeat):
                _pass(context, method, batch)
                classroom.steps += 1
            runtime.synchronize()
            if i:
                times.append((clock() - start) / repeat)
        if i and time.perf_counter() - began > ENOUGH:
            break
    context.optimizer.zero_grad(set_to_none=True)
    context.learner.load_state_dict(saved)
    checkpoint.set_rng_state(rng, runtime.device)
    classroom.mentors.forwards, classroom.steps = forwards, steps
    step, alone_step = statistics.median(taught), statistics.median(floor)
    if isinstance(classroom.method, Alone):
        step = alone_step
    return {"step_ms": 1000 * step, "floor_ms": 1000 * alone_step, "cost_ratio": step / alone_step}


def _pass(context: EngineContext, method: Method, batch: Batch) -> Lesson:
    """Lesson, terms and backward by a method and what it does after a step, without the student's update."""
    classroom = context.classroom
    own = classroom.method
    classroom.method = method
    try:
        lesson = context.lesson(batch)
        lesson.conclude(method(lesson))
        context.backward(lesson.loss)
        method.after_step(context, lesson)
    finally:
        classroom.method = own
    return lesson
