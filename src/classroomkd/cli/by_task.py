"""How a verb does its work on a student: one function a task, loaded when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.export import Student

__all__ = ["chosen", "refuse"]


def chosen(table: Mapping[str, str], student: Student) -> Callable[..., Any]:
    """The function ``module:function`` of a table by task."""
    module, _, function = table[student.task].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def refuse(student: Student, options: Mapping[str, Any]) -> None:
    """Refuse options that were given and mean nothing for a student's task.

    Raises:
        UserError: naming the first of ``options`` that is not None or False.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise UserError(f"{name} has no meaning for this student, whose task is {student.task}; leave it out")
