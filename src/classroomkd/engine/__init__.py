"""The engine: the loop on Lightning Fabric, mentors, students, and whole experiments. Names are loaded on first use."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Experiment": "experiment",
    "Fit": "train",
    "Inputs": "inputs",
    "Run": "api",
    "Runtime": "runtime",
    "Setup": "setup",
    "calibrate": "calibration",
    "distill": "api",
    "evaluate": "scoring",
}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
