"""Tasks: what an answer is and what "right" means. The table is readable without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.classroom.task import Task

__all__ = ["TASKS", "TaskEntry", "create", "sketch"]


class TaskEntry(NamedTuple):
    """A row of the table of tasks: ``module:Class`` and one line about it."""

    target: str
    summary: str


TASKS: dict[str, TaskEntry] = {
    "classification": TaskEntry("classroomkd.tasks.classification.task:Classification", "one class an image"),
    "pose": TaskEntry("classroomkd.tasks.pose.task:Pose", "where each joint of a person is"),
}


def create(name: str, **options: Any) -> Task:
    """Build a task by name; unknown names are a ``UserError`` with the nearest right one."""
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'{did_you_mean(name, TASKS)}; known: {', '.join(TASKS)}")
    module, _, attribute = TASKS[name].target.partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)(**options)
    return task


def sketch(name: str) -> Task:
    """A task by name with nothing known of the data, for checks of recipes."""
    module, _, attribute = TASKS[name].target.partition(":")
    task: Task = getattr(importlib.import_module(module), attribute).sketch()
    return task
