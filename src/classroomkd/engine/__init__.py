"""The old name of what is now in :mod:`classroomkd.train`, :mod:`classroomkd.run` and :mod:`classroomkd.api`."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_MOVED = {
    "Experiment": "run.experiment:Experiment",
    "Fit": "train.loop:Training",
    "Inputs": "train.inputs:Inputs",
    "Run": "api:Run",
    "Runtime": "train.runtime:Runtime",
    "calibrate": "run.calibration:calibrate",
    "distill": "api:distill",
    "evaluate": "train.scoring:evaluate",
}

__all__ = [*_MOVED]


def __getattr__(name: str) -> Any:
    if name == "Setup":
        raise AttributeError(
            "classroomkd.engine.Setup is gone: what a run is given is classroomkd.run.context.RunContext, its networks "
            "are classroomkd.run.networks.Networks"
        )
    if name not in _MOVED:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, _, attribute = _MOVED[name].partition(":")
    text = f"classroomkd.engine.{name} is classroomkd.{module}.{attribute} now; the old name goes with the next version"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(f"classroomkd.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
