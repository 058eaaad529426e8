"""Frozen selves: trainees as they were after an earlier stage of the arm, as mentors of a later one.

They are read from the stage's files, a seed, and answer themselves: the bank keeps answers of mentors that all arms and
seeds share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd import methods, models
from classroomkd.classroom.trainees import STUDENT
from classroomkd.run.stages import file_after
from classroomkd.train.scoring import answers

if TYPE_CHECKING:
    from classroomkd.classroom import Mentor
    from classroomkd.recipe import Arm, MentorSpec
    from classroomkd.run.judging import Judging
    from classroomkd.run.networks import Networks

__all__ = ["blank_selves", "identities", "load_selves", "ranks", "taught", "val_answers"]


def load_selves(networks: Networks, arm: Arm, folder: Path) -> list[Mentor]:
    """The selves that teach in a stage, with their weights.

    Args:
        networks: of the run.
        arm: the stage.
        folder: of the arm and the seed.

    Raises:
        UserError: a file that cannot be read.
    """
    found = []
    for spec, mentor in zip(networks.context.selves_of(arm), blank_selves(networks, arm), strict=True):
        stage, name = _made_from(spec)
        assert arm.stage is not None
        source = arm.stage.before(stage)
        assert source is not None
        file = folder / file_after(source, name)
        models.load_checkpoint(mentor.module, file, what=f"mentor '{spec.name}', {name} after stage '{stage}'")
        found.append(mentor)
    return found


def blank_selves(networks: Networks, arm: Arm) -> list[Mentor]:
    """The selves that teach in a stage with whatever weights their networks are built with."""
    found = []
    for spec in networks.context.selves_of(arm):
        _, name = _made_from(spec)
        network = networks.student(0) if name == STUDENT else networks.peer(networks.context.peer(name), 0)
        found.append(networks.anew(spec, network))
    return found


def identities(networks: Networks, arm: Arm) -> list[str | None]:
    """By self which trainee of the stage it is, as the classroom calls it; None where that does not learn any more."""
    found: list[str | None] = []
    for spec in networks.context.selves_of(arm):
        _, name = _made_from(spec)
        found.append(STUDENT if name == arm.lead else name if name in arm.peers else None)
    return found


def taught(networks: Networks, arm: Arm) -> list[bool]:
    """By self whether it is an assistant: mentors taught it in its stage, and it does not learn in this one."""
    context, found = networks.context, []
    whole = next(one for one in context.recipe.arms() if one.slug == arm.slug)
    for spec, identity in zip(context.selves_of(arm), identities(networks, arm), strict=True):
        stage, _ = _made_from(spec)
        training = next(one for one in whole.trainings if one.stage is not None and one.stage.name == stage)
        asks = methods.compose(training.parts, peers=len(training.peers)).needs.mentors > 0
        found.append(asks and identity is None)
    return found


def ranks(networks: Networks, selves: Sequence[Mentor], judging: Judging) -> list[float]:
    """Their scores on the validation part, more is better."""
    context, runner = networks.context, networks.task_runner
    size = context.recipe.train.eval_batch_size
    with context.runtime.autocast():
        scores = [runner.evaluate(mentor.module, judging.val, context.inputs, size).value for mentor in selves]
    return [runner.measure.rank(score) for score in scores]


def val_answers(networks: Networks, selves: Sequence[Mentor]) -> list[Tensor]:
    """Their answers on the validation part, on the CPU, for what calibrates mentors by them."""
    context = networks.context
    size, part = context.recipe.train.eval_batch_size, context.data.val
    with context.runtime.autocast(), torch.no_grad():
        return [answers(one, part, context.inputs, size, context.base_views)[0].cpu() for one in selves]


def _made_from(spec: MentorSpec) -> tuple[str, str]:
    """Stage and network."""
    assert spec.made_from is not None
    stage, _, name = spec.made_from.partition(".")
    return stage, name
