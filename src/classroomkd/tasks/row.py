"""A row of the table of tasks: where the parts of a task live, each loaded when asked for. Readable without torch."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.classroom.task import Task
    from classroomkd.tasks.spec import TaskDescription

__all__ = ["TaskRow", "loaded"]


class TaskRow(NamedTuple):
    """One task.

    The four parts are ``module:Class``. Each may import those before it, never those behind it, and is loaded only
    when it is asked for.

    Attributes:
        name: what a recipe's ``task:`` says.
        summary: one line.
        spec: a :class:`classroomkd.tasks.spec.TaskDescription`; without torch.
        task: a :class:`classroomkd.classroom.Task`.
        runner: a :class:`classroomkd.tasks.runner.TaskRunner`.
        files: a :class:`classroomkd.tasks.files.TaskFiles`.
    """

    name: str
    summary: str
    spec: str
    task: str
    runner: str
    files: str

    @property
    def description(self) -> TaskDescription:
        """What is known without torch.

        Raises:
            UserError: as :meth:`load` does.
        """
        description: TaskDescription = _instance(self.name, self.spec)
        return description

    @property
    def task_class(self) -> type[Task]:
        """The class that methods are written against."""
        cls: type[Task] = self.load("task")
        return cls

    def open_files(self) -> Any:
        """The task's one object of ``files``; typed in ``tasks/files.py``, which stands above this file."""
        return _instance(self.name, self.files)

    def load(self, part: str) -> Any:
        """The class of a part: ``spec``, ``task``, ``runner`` or ``files``.

        Raises:
            UserError: a plug-in's part that cannot be imported.
        """
        return loaded(self.name, getattr(self, part))


def loaded(name: str, target: str) -> Any:
    """What ``target`` (``module:attribute``) of a task is.

    Raises:
        UserError: it cannot be imported.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"task '{name}' is listed as {target} but cannot be loaded: {error}") from error


@cache
def _instance(name: str, target: str) -> Any:
    return loaded(name, target)()
