"""What ``bench`` and a dry run time: an arm as a training has it, and a bank with made-up answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd import bank
from classroomkd.bank import LOGITS
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews
from classroomkd.methods.none import Alone
from classroomkd.recipe.bank_spec import BankSpec
from classroomkd.run.mentor_cache import fits_in_slabs
from classroomkd.run.networks import Networks
from classroomkd.run.students import untrained_classroom
from classroomkd.train import checkpoint
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.memory_format import settle
from classroomkd.train.optim import set_learning_rate
from classroomkd.train.step import StepRunner
from classroomkd.train.step_context import step_context

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext

__all__ = ["alone", "endless", "prepared", "stand_in", "student_layout"]


@contextmanager
def prepared(networks: Networks, arm: Arm, last: bool, weights: bool = False) -> Iterator[StepRunner]:
    """The arm's context as a training has it: fast mentors, the student's layout (channels-last or not), its optimiser.

    With ``weights`` networks that have some are loaded; else all are as they are built. What is in memory, and the
    generators, are put back afterwards.
    """
    device = networks.context.runtime.device
    rng = checkpoint.rng_state(device)
    room = untrained_classroom(networks, arm, weights)
    saved = copy.deepcopy(room.state_dict())
    room.mentors.mentors = [networks.optimized(mentor) for mentor in room.mentors]
    if room.method.needs.calibration:
        room.calibration = networks.task_runner.blank_calibration(len(room.mentors))
    room.method.prepare_blank()
    runner = _step_runner(networks, room, last, arm)
    try:
        yield runner
    finally:
        runner.optimizer.zero_grad(set_to_none=True)
        room.load_state_dict(saved)
        checkpoint.set_rng_state(rng, device)


def alone(networks: Networks, last: bool) -> StepRunner:
    """The student without mentors, in the same settings: the floor."""
    room = Classroom(networks.student(0), (), Alone(), task=networks.task_runner.task)
    return _step_runner(networks, room.to(networks.context.runtime.device), last)


def _step_runner(networks: Networks, room: Classroom, last: bool, arm: Arm | None = None) -> StepRunner:
    context = networks.context
    spec = context.recipe.train if arm is None else context.train_of(arm)
    inputs = Inputs(context.inputs.mean, context.inputs.std, context.runtime.device, last)
    peers = {name: context.train_of(arm, name) for name in context.peers_of(arm)} if arm is not None else {}
    runner = step_context(
        context.runtime, room, inputs, spec, topics=len(context.classes), last=last, example=context.blank, peers=peers
    )
    # The update is timed, and must not carry the networks off.
    for optimizer in (runner.raw_optimizer, *(peer.raw_optimizer for peer in runner.peers.values())):
        set_learning_rate(optimizer, 1e-6)
    runner.progress.batches = len(
        Batches(context.student_part, context.base_views, spec.batch_size, 0, ratio=spec.unlabelled_ratio)
    )
    runner.train()
    return runner


def endless(context: RunContext, part: Part, space: Views) -> Iterator[dict[str, Tensor]]:
    """Batches of the first epoch again and again, each augmented anew."""
    size, extra_sizes = context.recipe.train.batch_size, context.known_extra_sizes
    batches = Batches(part, space, size, 0, drop_last=True, sizes=extra_sizes, device=context.runtime.device)
    return (batch for _ in count() for batch in batches.epoch(0))


def stand_in(
    networks: Networks, bank_plan: BankPlan, room: Classroom, part: Part, folder: Path
) -> tuple[bank.Bank, Views]:
    """A bank of the kind this run would use, and its views, with made-up answers to the first epoch's questions."""
    context, choice = networks.context, bank_plan.choice
    exact, space = choice.spec.kind == "exact", context.base_views
    if not exact:
        counts = (BankSpec.parse(kind).views for kind in choice.answers)
        space = FixedViews(space, choice.spec.views or next(filter(None, counts), 1))
    assert space.count is not None
    shown = space.pick(0, part.ids, 0)
    activations = room.shapes.mentors if room.shapes is not None else {}
    stores = []
    for m, mentor in enumerate(room.mentors):
        codecs: dict[str, bank.Codec] = {LOGITS: networks.task_runner.codec(mentor, choice.spec.top)}
        codecs |= {tap: bank.Dense(shapes[m]) for tap, shapes in activations.items()}
        by_kind = {}
        for place, (kind, codec) in enumerate(codecs.items()):
            by_kind[kind] = bank.RowStore.open(
                folder / f"{m}-{place}",
                {"mentor": mentor.name},
                kind=kind,
                views=space.count,
                samples=len(part),
                codec=codec,
                write=True,
            )
            by_kind[kind].write(shown.cpu(), torch.arange(len(part)), torch.randn(len(part), *codec.shape))
        stores.append(by_kind)
    if exact or not fits_in_slabs(networks, len(room.mentors)):
        return bank.FillOnMissCache(stores, part.ids, context.runtime.device), space
    cache = bank.EpochCache(stores, part.ids, context.runtime.device, room=0)
    cache.begin(int(shown[0]))
    return cache, space


def student_layout(networks: Networks) -> bool:
    """Whether the student works channels-last, decided as a training decides it."""
    context = networks.context
    spec = context.recipe.train
    if spec.channels_last != "auto":
        return bool(spec.channels_last)
    inputs = context.inputs(context.eval_batch(spec.batch_size))
    return settle(networks.blank_student(), inputs, context.runtime, None, False)
