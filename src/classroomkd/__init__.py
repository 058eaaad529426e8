"""classroomkd: teach one small vision model from many trained ones.

Public names are loaded on first use, so ``import classroomkd`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Answers": "classroomkd.classroom",
    "Classroom": "classroomkd.classroom",
    "Lesson": "classroomkd.classroom",
    "Mentor": "classroomkd.classroom",
    "Method": "classroomkd.classroom",
    "Needs": "classroomkd.classroom",
    "Task": "classroomkd.classroom",
    "Terms": "classroomkd.classroom",
    "calibrate": "classroomkd.run.calibration",
    "distill": "classroomkd.api",
    "load_student": "classroomkd.export",
}
_MODULES = ("data", "engine", "export", "functional", "methods", "models", "recipe", "report", "tasks")

__all__ = ["__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"classroomkd.{name}")
    raise AttributeError(f"module 'classroomkd' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
