"""The runner of a run's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroomkd import tasks
from classroomkd.tasks.runner import NetworkSource, TaskRunner

if TYPE_CHECKING:
    from classroomkd.run.context import RunContext

__all__ = ["TaskRunner", "open_runner"]


def open_runner(context: RunContext, networks: NetworkSource) -> TaskRunner:
    """The runner of a run's task."""
    runner: TaskRunner = tasks.find_row(context.recipe.task.name).load("runner")(context, networks)
    return runner
