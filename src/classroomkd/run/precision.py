"""``train.precision: auto``: bf16 where the hardware has it and the student gains by it, decided once a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from classroomkd._stored import MAPPING, read_json
from classroomkd.classroom import prediction_of
from classroomkd.errors import UserError
from classroomkd.train.memory_format import choose_layout
from classroomkd.train.optimize import has_bf16
from classroomkd.train.runtime import pick_device

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe
    from classroomkd.run.networks import Networks

__all__ = ["decided", "known", "with_precision"]

Precision = Literal["fp32", "bf16"]


def known(recipe: Recipe, out: Path) -> Precision | None:
    """The precision of a run that says ``auto``, where no probe is needed: as the folder has it, or by the hardware.

    A run that is resumed keeps its precision. Several ranks take bf16 where the hardware has it; a probe by each could
    end differently. None: a probe must decide.
    """
    kept = out / "environment.json"
    if kept.exists():
        try:
            stored = read_json(kept, MAPPING, remedy="").get("precision")
        except UserError:  # cut by a kill: it is written before anything is trained
            stored = None
        if stored in ("fp32", "bf16"):
            return "bf16" if stored == "bf16" else "fp32"
    if not has_bf16(pick_device(recipe.device)):
        return "fp32"
    return "bf16" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def decided(networks: Networks) -> Precision:
    """What a probe of the student says, whose context works in fp32."""
    context, student = networks.context, networks.blank_student()
    with torch.random.fork_rng(devices=[]):
        size = min(context.recipe.train.batch_size, len(context.student_part))
        pixels, target, _ = context.student_part.batch(torch.arange(size))
        pixels, _ = context.base_views.eval_view(pixels, target)
        return choose_layout(
            student, context.inputs(pixels), lambda output: prediction_of(output).float().square().mean()
        )["precision"]


def with_precision(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe with ``auto`` replaced, for the student and for every mentor that is trained."""

    def settled(train: Any) -> Any:
        return train.model_copy(update={"precision": precision}) if train and train.precision == "auto" else train

    mentors = tuple(mentor.model_copy(update={"train": settled(mentor.train)}) for mentor in recipe.mentors)
    update = {"train": settled(recipe.train), "mentor_train": settled(recipe.mentor_train), "mentors": mentors}
    return recipe.model_copy(update=update)
