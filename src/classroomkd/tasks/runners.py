"""The runner of a run's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroomkd import tasks
from classroomkd.tasks.runner import TaskRunner

if TYPE_CHECKING:
    from classroomkd.run.setup import Setup

__all__ = ["TaskRunner", "open_runner"]


def open_runner(setup: Setup) -> TaskRunner:
    """The runner of a run's task."""
    runner: TaskRunner = tasks.find_row(setup.recipe.task.name).load("runner")(setup)
    return runner
