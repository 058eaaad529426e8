"""How long a run is going to take, from what a dry run has measured: an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.workers import cores

if TYPE_CHECKING:
    from classroomkd.run.bank_choice import Choice
    from classroomkd.run.context import RunContext

__all__ = ["time_needed"]

BACKWARD = 2.0  # forward passes that a backward pass takes


def time_needed(
    context: RunContext, choice: Choice, arms: list[dict[str, Any]], mentors: dict[str, dict[str, Any]]
) -> dict[str, float | None]:
    """Seconds of a run, as ``{"mentors", "students", "scoring", "total"}``; None for what nobody could measure.

    Args:
        context: of the run.
        choice: its bank. What the mentors answer to fill it counts with the students.
        arms, mentors: of the plan.
    """
    recipe, data = context.recipe, context.data
    waiting = arms[0]["data_ms"]  # for a batch; decoded while the step before is computed
    students = floor = 0.0
    for arm in arms:
        share = choice.asked() / max(choice.trainings * choice.epochs, 1)
        factor, stored = arm["x_floor"], arm["x_floor_bank"]
        if stored is not None:
            factor = stored + share * (factor - stored)
        floor = arm["floor_ms"]
        step = floor * factor
        step = max(step, waiting) if data.train.pixels.decodes else step + waiting
        students += len(recipe.seeds) * arm["steps"] * step / 1000
    each = floor / 1000 / recipe.train.batch_size / (1 + BACKWARD)
    averaged = 2 if recipe.train.ema is not None else 1
    times = sum(arm["epochs"] // recipe.train.eval_every + 1 for arm in arms)
    seen = len(data.val) * times * averaged + len(arms) * len(data.test) * (1 + averaged)
    scoring = len(recipe.seeds) * each * seen
    prepared = 0.0
    for index, spec in enumerate(recipe.mentors):
        known = mentors[spec.name]["seconds_a_sample"]
        if known is None:
            return {"mentors": None, "students": students, "scoring": scoring, "total": None}
        prepared += known * (len(data.val) + len(data.test))
        if mentors[spec.name]["how"] == "trained" and not mentors[spec.name]["cached"]:
            part, _ = mentor_part(context, index)
            prepared += known * (1 + BACKWARD) * len(part) * context.mentor_train(index).epochs
    beside = _side_by_side(context)
    whole = {"mentors": prepared / beside, "students": students / beside, "scoring": scoring / beside}
    return {key: round(value, 2) for key, value in {**whole, "total": sum(whole.values())}.items()}


def _side_by_side(context: RunContext) -> float:
    """How many one-thread jobs run at a time, where one thread was what was measured."""
    recipe = context.recipe
    if torch.get_num_threads() > 1 or context.runtime.device.type != "cpu" or context.runtime.world > 1:
        return 1.0
    if recipe.workers == 1 or context.given:
        return 1.0
    wanted = recipe.workers if isinstance(recipe.workers, int) else cores()
    return float(max(1, min(wanted, cores(), len(recipe.arms()) * len(recipe.seeds))))
