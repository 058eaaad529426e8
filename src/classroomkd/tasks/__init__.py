"""Tasks: what an answer is and what "right" means. The table is readable without torch.

A task is a folder and one row. A task of a plug-in enters through the entry-point group ``classroomkd.tasks``: the
point's name is the task's, its value ``module:ROW``, a :class:`TaskRow`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from classroomkd.errors import UserError, did_you_mean
from classroomkd.tasks.row import TaskRow, loaded

if TYPE_CHECKING:
    from classroomkd.classroom.task import Task
    from classroomkd.tasks.spec import TaskDescription

__all__ = ["DEFAULT", "TASKS", "TaskRow", "create", "describe", "find_row", "names", "offering", "rows", "sketch"]

GROUP = "classroomkd.tasks"
DEFAULT = "classification"  # where a recipe names no task


def _row(name: str, summary: str, task: str) -> TaskRow:
    """A row of this package, whose classes are called after that of the task."""
    here = f"{__name__}.{name}"
    return TaskRow(
        name, summary, f"{here}.spec:{task}Spec", f"{here}.task:{task}", f"{here}.runner:{task}Runner",
        f"{here}.files:{task}Files",
    )  # fmt: skip


TASKS: dict[str, TaskRow] = {
    row.name: row
    for row in (
        _row("classification", "one class an image", "Classification"),
        _row("pose", "where each joint of a person is", "Pose"),
    )
}


@cache
def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in TASKS}


def names() -> list[str]:
    """Every task's name, those of installed plug-ins included; nothing is loaded."""
    return [*TASKS, *_plugins()]


@cache
def find_row(name: str) -> TaskRow:
    """The row of a task; a plug-in cannot replace a row of ours.

    Raises:
        UserError: an unknown name, or a plug-in that cannot be loaded.
    """
    if name in TASKS:
        return TASKS[name]
    if name not in _plugins():
        raise UserError(f"unknown task '{name}'{did_you_mean(name, names())}; known: {', '.join(names())}")
    target = _plugins()[name].value
    row = loaded(name, target)
    if not isinstance(row, TaskRow) or row.name != name:
        raise UserError(f"task '{name}' is listed as {target}, which is no TaskRow of that name")
    return row


def rows() -> Iterator[TaskRow]:
    """Every row whose description can be loaded."""
    for name in names():
        try:
            row = find_row(name)
            _ = row.description
        except UserError:  # whoever asks for that task by its name is told why
            continue
        yield row


def offering(asks: Collection[str]) -> list[str]:
    """The names of the tasks that offer what a method asks for (``MethodEntry.asks``)."""
    return [row.name for row in rows() if row.description.offers.issuperset(asks)]


def describe(name: str) -> TaskDescription:
    """What is known of a task without torch; errors as :func:`find_row`."""
    return find_row(name).description


def create(name: str, **options: Any) -> Task:
    """Build a task by name; unknown names are a ``UserError`` with the nearest right one."""
    return find_row(name).task_class(**options)


def sketch(name: str) -> Task:
    """A task by name with nothing known of the data, for checks of recipes."""
    return find_row(name).task_class.sketch()
