"""What a step works with, made from a recipe's training section: the same for a training, a dry run and a bench."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.step import StepRunner
from classroomkd.train.watch import Watch

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.recipe import TrainSpec
    from classroomkd.train.inputs import Inputs
    from classroomkd.train.progress import Progress
    from classroomkd.train.runtime import Runtime

__all__ = ["step_context"]


def step_context(
    runtime: Runtime,
    classroom: Classroom,
    inputs: Inputs,
    spec: TrainSpec,
    *,
    topics: int,
    last: bool,
    progress: Progress | None = None,
    untouched: Collection[str] = (),
) -> StepRunner:
    """The context of a classroom's steps, its student in its layout, with a new optimiser and record.

    Args:
        runtime: devices, precision, ranks.
        classroom: on the runtime's device.
        inputs: pixels to inputs, in the student's layout.
        spec: optimiser, accumulation, clipping, averaging, compiling.
        topics: K of the record.
        last: whether the student is channels-last.
        progress: where the training stands; None: nothing is trained but tried, and mentors' answers are not watched.
        untouched: names of the student's parameters that no forward pass uses; needed under ranks.
    """
    if last:
        classroom.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reduce, join = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
    mentors, watch = classroom.mentors, None
    if progress is not None and classroom.method.needs.mentors > 0 and len(mentors):
        watch = Watch(mentors.names, classroom.task, runtime.device, reduce, join)
    return StepRunner(
        runtime,
        classroom,
        build_optimizer(classroom, spec),
        inputs,
        Record(len(mentors), topics, runtime.device, reduce, runtime.rank, watch),
        progress,
        accumulate=spec.accumulate,
        clip=spec.clip,
        ema=spec.ema,
        compile=spec.compile,
        untouched=untouched,
    )
