"""What ``bench`` and a dry run time: an arm as a training has it, and a bank with made-up answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd import bank
from classroomkd.bank import LOGITS
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews
from classroomkd.methods.none import Alone
from classroomkd.run.mentor_cache import slab_most
from classroomkd.run.setup import Setup
from classroomkd.run.students import untrained_classroom
from classroomkd.train import checkpoint
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.step import StepRunner
from classroomkd.train.step_context import step_context

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import Arm

__all__ = ["alone", "endless", "prepared", "stand_in"]


@contextmanager
def prepared(setup: Setup, arm: Arm, last: bool, weights: bool = False) -> Iterator[StepRunner]:
    """The arm's context as a training has it: fast mentors, the student's layout (channels-last or not), its optimiser.

    With ``weights`` networks that have some are loaded; else all are as they are built. What is in memory, and the
    generators, are put back afterwards.
    """
    device = setup.runtime.device
    rng = checkpoint.rng_state(device)
    room = untrained_classroom(setup, arm, weights)
    saved = copy.deepcopy(room.state_dict())
    room.mentors.mentors = [setup.optimized(mentor) for mentor in room.mentors]
    if room.method.needs.calibration:
        room.calibration = setup.task_runner.blank_calibration(len(room.mentors))
    context = _context(setup, room, last)
    try:
        yield context
    finally:
        context.optimizer.zero_grad(set_to_none=True)
        room.load_state_dict(saved)
        checkpoint.set_rng_state(rng, device)


def alone(setup: Setup, last: bool) -> StepRunner:
    """The student without mentors, in the same settings: the floor."""
    student = setup.build(setup.recipe.student.model, "student", 0)
    if setup.given and "student" in setup.given:
        student = copy.deepcopy(student)
    return _context(setup, Classroom(student, (), Alone(), task=setup.task).to(setup.runtime.device), last)


def _context(setup: Setup, room: Classroom, last: bool) -> StepRunner:
    spec = setup.recipe.train
    inputs = Inputs(setup.inputs.mean, setup.inputs.std, setup.runtime.device, last)
    context = step_context(setup.runtime, room, inputs, spec, topics=len(setup.classes), last=last)
    for group in context.raw_optimizer.param_groups:
        group["lr"] = 1e-6  # the update is timed, and must not carry the networks off
    context.group = min(spec.accumulate, len(Batches(setup.student_part, setup.views, spec.batch_size, 0)))
    room.train()
    return context


def endless(setup: Setup, part: Part, space: Views) -> Iterator[dict[str, Tensor]]:
    """Batches of the first epoch again and again, each augmented anew."""
    size, extra_sizes = setup.recipe.train.batch_size, setup.known_extra_sizes
    batches = Batches(part, space, size, 0, drop_last=True, sizes=extra_sizes, device=setup.runtime.device)
    return (batch for _ in cycle((0,)) for batch in batches.epoch(0))


def stand_in(setup: Setup, context: StepRunner, part: Part, folder: Path) -> tuple[bank.Bank, Views]:
    """A bank of the kind this run would use, and its views, with made-up answers to the first epoch's questions."""
    room, choice = context.classroom, setup.bank
    views = next((int(kind.removeprefix("views=")) for kind in choice.answers if kind.startswith("views=")), 1)
    exact = choice.spec.kind == "exact"
    space: Views = setup.base_views
    if not exact:
        space = FixedViews(space, choice.spec.views or views)
    assert space.count is not None
    shown = space.pick(0, part.ids, 0)
    kinds = room.shapes.mentors if room.shapes is not None else {}
    stores = []
    for m, mentor in enumerate(room.mentors):
        codecs: dict[str, bank.Codec] = {LOGITS: setup.task_runner.codec(mentor, choice.spec.top)}
        codecs |= {tap: bank.Dense(shapes[m]) for tap, shapes in kinds.items()}
        made = {}
        for place, (kind, codec) in enumerate(codecs.items()):
            made[kind] = bank.RowStore.open(
                folder / f"{m}-{place}",
                {"mentor": mentor.name},
                kind=kind,
                views=space.count,
                samples=len(part),
                codec=codec,
                write=True,
            )
            made[kind].write(shown.cpu(), torch.arange(len(part)), torch.randn(len(part), *codec.shape))
        stores.append(made)
    slab = 2 * len(setup.student_part) * len(room.mentors) * setup.task_runner.answer_size
    if exact or slab > slab_most(setup.runtime.device):
        return bank.FillOnMissCache(stores, part.ids, setup.runtime.device), space
    found = bank.EpochCache(stores, part.ids, setup.runtime.device, room=0)
    found.begin(int(shown[0]))
    return found, space
