"""Attempts of one torchrun: with ``--max-restarts`` it starts all ranks again when one has failed."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

__all__ = ["attempt", "restarted"]


def attempt() -> dict[str, str] | None:
    """What torchrun calls this run, and who keeps its processes: the same in every attempt. None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name is None else {"run_id": name, "agent": f"{platform.node()}:{os.getppid()}"}


def restarted(out: Path) -> bool:
    """Whether torchrun (``--max-restarts``) has begun the run of this folder before, which is then to be resumed.

    Only the first rank looks; the others are told. A run that was given no name (``none``) is known by its agent.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or os.environ.get("RANK", "0") != "0":
        return False
    try:
        stored, own = json.loads((out / "environment.json").read_text()).get("torchelastic"), attempt()
    except (OSError, ValueError):
        return False
    if own is None or not isinstance(stored, dict) or stored.get("run_id") != own["run_id"]:
        return False
    return own["run_id"] != "none" or stored.get("agent") == own["agent"]
