"""Networks by name, checkpoints, and what a network costs.

``names``, ``table`` and ``released_places`` are readable without torch; the rest is imported on first use.

- ``create("resnet20", num_classes=10)``, ``resolve("timm:resnet50", 10)``: names to modules; ``check``: the name alone
- ``start_pretrained``: a library's published weights, out of the local cache
- ``load_checkpoint``, ``save_checkpoint``: strict, never unpickling, atomic
- ``parameters``, ``multiply_adds``, ``class_count``, ``summary``: size, cost, classes and taps of any module
- ``released_places``: where the code of the literature reads a network of the zoo
- ``preprocessing``: the mean, std and size a library's network was trained with
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from classroomkd.models.catalogue import names, released_places, table

if TYPE_CHECKING:
    from classroomkd.models.building import check, create, preprocessing, resolve, start_pretrained
    from classroomkd.models.checkpoints import load_checkpoint, save_checkpoint
    from classroomkd.models.measuring import class_count, multiply_adds, parameters, summary

__all__ = [
    "check",
    "class_count",
    "create",
    "load_checkpoint",
    "multiply_adds",
    "names",
    "parameters",
    "preprocessing",
    "released_places",
    "resolve",
    "save_checkpoint",
    "start_pretrained",
    "summary",
    "table",
]

_LAZY = {
    **dict.fromkeys(("check", "create", "preprocessing", "resolve", "start_pretrained"), "building"),
    **dict.fromkeys(("load_checkpoint", "save_checkpoint"), "checkpoints"),
    **dict.fromkeys(("class_count", "multiply_adds", "parameters", "summary"), "measuring"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"classroomkd.models.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'classroomkd.models' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
