"""What a step works with, made from a recipe's training section: the same for a training, a dry run and a bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.train.learner import untouched
from classroomkd.train.meter import Record
from classroomkd.train.optim import build_optimizer
from classroomkd.train.parts import freeze
from classroomkd.train.peers import peers_of
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
    example: Callable[[], Tensor] | None = None,
    peers: Mapping[str, TrainSpec] | None = None,
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
        example: gives a batch of the student's inputs; needed under ranks, and for parts that are named by a role.
        peers: how the student's peers are trained, by name, where it is not as the student.
    """
    if last:
        for network in (classroom.student, *classroom.peers.networks.values()):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reduce, join = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
    still = freeze(classroom.student, spec, example) if example is not None else []
    idle = untouched(classroom, example()) if runtime.world > 1 and example is not None else ()
    mentors, watch = classroom.mentors, None
    if progress is not None and classroom.method.needs.mentors > 0 and len(mentors):
        watch = Watch(mentors.names, classroom.task, runtime.device, reduce, join)
    return StepRunner(
        runtime,
        classroom,
        build_optimizer(classroom, spec, example),
        inputs,
        Record(len(mentors), topics, runtime.device, reduce, runtime.rank, watch, mentors.names),
        progress,
        accumulate=spec.accumulate,
        clip=spec.clip,
        ema=spec.ema,
        compile=spec.compile,
        untouched=idle,
        still=still,
        peers=peers_of(classroom, peers or {}, spec),
    )
