"""The runners of all tasks: how a task's networks are built, joined and scored. One file a task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from classroomkd.tasks.runner import TaskRunner

if TYPE_CHECKING:
    from classroomkd.run.setup import Setup

__all__ = ["RUNNERS", "TaskRunner", "open_runner"]

RUNNERS = {
    "classification": "classroomkd.tasks.classification.runner:ClassificationRunner",
    "pose": "classroomkd.tasks.pose.runner:PoseRunner",
}


def open_runner(setup: Setup) -> TaskRunner:
    """The runner of a run's task."""
    module, _, name = RUNNERS[setup.recipe.task.name].partition(":")
    runner: TaskRunner = getattr(importlib.import_module(module), name)(setup)
    return runner
