"""From a recipe to what every job of a process is given: data, runtime, cache, and the precision of ``auto``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classroomkd import data
from classroomkd._files import refuse_no_text
from classroomkd._stored import MAPPING, read_json
from classroomkd.classroom import prediction_of
from classroomkd.errors import UserError
from classroomkd.run.context import RunContext, cache_of
from classroomkd.run.networks import Networks
from classroomkd.tasks.runner import runner_of
from classroomkd.train.memory_format import choose_layout
from classroomkd.train.mixing import check_ratio
from classroomkd.train.optimize import Precision, has_bf16
from classroomkd.train.runtime import Runtime, pick_device

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe

__all__ = ["known_precision", "open_context"]


def open_context(
    recipe: Recipe,
    out: Path,
    *,
    trust_code: bool = False,
    given: Mapping[str, nn.Module] | None = None,
    source: Any = None,
) -> RunContext:
    """Load the data and open the runtime: everything jobs share.

    ``train.precision: auto`` is decided here, once a run: bf16 where the hardware has it and the student gains by it.
    Trained mentors and stored answers live in the recipe's ``cache``, or in one folder beside the run.
    """
    cache = cache_of(recipe.cache, out)
    for place in (out, cache):
        refuse_no_text(place)
    threads = recipe.threads if isinstance(recipe.threads, int) else None
    spec = recipe.data.model_dump(exclude_defaults=True) if source is None else source
    images = data.load(spec, task=recipe.task.name, trust_code=trust_code)
    if not images.classes:
        images = runner_of(recipe.task.name).named(images, recipe, given or {}, trust_code)
    check_ratio(images.train, recipe.train.unlabelled_ratio, recipe.train.batch_size)
    if recipe.train.precision == "auto":
        precision = known_precision(recipe, out)
        if precision is None:
            plain = _with_precision(recipe, "fp32")
            probe = RunContext(plain, images, Runtime(recipe.device), cache, trust_code, given or {})
            precision = _probed_precision(Networks(probe))
        recipe = _with_precision(recipe, precision)
    runtime = Runtime(recipe.device, recipe.train.precision, threads)
    if isinstance(images.train.pixels, data.MemoryPixels):
        images = images.to(runtime.device)
    return RunContext(recipe, images, runtime, cache, trust_code, given or {})


def known_precision(recipe: Recipe, out: Path) -> Precision | None:
    """The precision of a run that says ``auto``, where no probe is needed: as the folder has it, or by the hardware.

    A run that is resumed keeps its precision. Several ranks take bf16 where the hardware has it; a probe by each could
    end differently. None: a probe must decide.
    """
    environment = out / "environment.json"
    if environment.exists():
        try:
            stored = read_json(environment, MAPPING, remedy="").get("precision")
        except UserError:  # cut by a kill: it is written before anything is trained
            stored = None
        if stored in ("fp32", "bf16"):
            return "bf16" if stored == "bf16" else "fp32"
    if not has_bf16(pick_device(recipe.device)):
        return "fp32"
    return "bf16" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def _probed_precision(networks: Networks) -> Precision:
    """What a probe of the student says, whose context works in fp32."""
    context = networks.context
    inputs = context.inputs(context.eval_batch(context.recipe.train.batch_size))
    with torch.random.fork_rng(devices=[]):
        try:
            student = networks.blank_student()
            found = choose_layout(student, inputs, lambda output: prediction_of(output).float().square().mean())
        except Exception:  # a network or a batch that does not work: the check of the run says why, in one sentence
            return "fp32"
    return found["precision"]


def _with_precision(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe with ``auto`` replaced, for the student and for every mentor that is trained."""

    def settled(train: Any) -> Any:
        return train.model_copy(update={"precision": precision}) if train and train.precision == "auto" else train

    mentors = tuple(mentor.model_copy(update={"train": settled(mentor.train)}) for mentor in recipe.mentors)
    update = {"train": settled(recipe.train), "mentor_train": settled(recipe.mentor_train), "mentors": mentors}
    return recipe.model_copy(update=update)
