"""What the engine must know of a task: how its networks are built, joined and scored. One file a task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from classroomkd.engine.subjects.base import Subject

if TYPE_CHECKING:
    from classroomkd.engine.setup import Setup

__all__ = ["SUBJECTS", "Subject", "open_subject"]

SUBJECTS = {
    "classification": "classroomkd.engine.subjects.classification:Classes",
    "pose": "classroomkd.engine.subjects.pose:Joints",
}


def open_subject(setup: Setup) -> Subject:
    """The subject of a run's task."""
    module, _, name = SUBJECTS[setup.recipe.task.name].partition(":")
    subject: Subject = getattr(importlib.import_module(module), name)(setup)
    return subject
