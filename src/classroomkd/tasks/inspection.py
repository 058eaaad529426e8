"""What is inside a network of any task, by its name: size, cost, and where it can be tapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classroomkd import models, tasks
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.measuring import example
from classroomkd.taps.roles import survey
from classroomkd.tasks.files import files_of
from classroomkd.tasks.spec import TaskDescription

__all__ = ["inspect_network"]


def inspect_network(
    model: str, task: str | None, counts: Mapping[str, int | None], shape: str | None, trust_code: bool
) -> dict[str, Any]:
    """A network's parameters, multiply-adds, stages and taps, as plain data.

    Args:
        model: its name.
        task: what it is for; None: what the name says.
        counts: ``classes`` and ``joints``, each a number or None; those of another task are refused.
        shape: of the input, ``CxHxW``; None: what is usual.
        trust_code: whether a ``py:`` name may run.

    Raises:
        UserError: no such task, network or shape, or a count that means nothing for it.
    """
    description = _task_of(model, task)
    size = _shape(shape) if shape is not None else (3, *description.usual_size(model))
    for name, value in counts.items():
        if value is not None and name != description.counted:
            raise UserError(f"--{name} has no meaning for {model}, a network for {description.name}; leave it out")
    count = counts.get(description.counted) or description.usual_count
    files = files_of(description.name)
    module = files.network(model, count, size, trust_code)
    head = files.head(module, model, size)
    taps = models.summary(module, size)
    shapes = {tap["name"]: tap["output_shape"] for tap in taps}
    places = survey(module, example(module, size), model)
    return {
        "model": model,
        "task": description.name,
        description.counted: count,
        "shape": list(size),
        "parameters": models.parameters(module),
        "multiply_adds": models.multiply_adds(module, size),
        **({"head": head} if head else {}),
        "stages": [{"name": stage.name, "shape": list(stage.shape)} for stage in places.stages],
        "penultimate": places.penultimate,
        "released": [{"name": name, "shape": shapes[name]} for name in models.released_places(model)],
        "taps": taps,
    }


def _task_of(model: str, task: str | None) -> TaskDescription:
    """The task that a network is for: as said, else the one that alone knows such a name, else the usual one."""
    if task is not None:
        known = tasks.names()
        if task not in known:
            raise UserError(f"--task {task}: choose one of {', '.join(known)}{did_you_mean(task, known)}")
        return tasks.describe(task)
    alone = (row.description for row in tasks.rows() if row.description.knows(model))
    return next(alone, tasks.describe(tasks.DEFAULT))


def _shape(text: str) -> tuple[int, int, int]:
    """(C, H, W) of the input."""
    try:
        channels, height, width = (int(number) for number in text.lower().split("x"))
    except ValueError as error:
        raise UserError(f"--shape {text}: write it as CxHxW, for example 3x32x32") from error
    if min(channels, height, width) < 1:
        raise UserError(f"--shape {text}: write it as CxHxW, for example 3x32x32")
    return channels, height, width
