"""What a step works with, made from a recipe's training section: the same for a training, a dry run and a bench."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.step import StepRunner

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.recipe import TrainSpec
    from classroomkd.train.inputs import Inputs
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
    reduce: Callable[[Tensor], Tensor] | None = None,
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
        reduce: sums a record over ranks; None on one.
        untouched: names of the student's parameters that no forward pass uses; needed under ranks.
    """
    if last:
        classroom.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StepRunner(
        runtime,
        classroom,
        build_optimizer(classroom, spec),
        inputs,
        Record(len(classroom.mentors), topics, runtime.device, reduce),
        accumulate=spec.accumulate,
        clip=spec.clip,
        ema=spec.ema,
        compile=spec.compile,
        untouched=untouched,
    )
