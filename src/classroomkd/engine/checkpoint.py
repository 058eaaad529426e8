"""Training checkpoints: everything a run needs to go on to the same weights, read with ``weights_only=True``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from classroomkd._files import atomic_write
from classroomkd.errors import UserError

__all__ = ["SCHEMA", "load", "rng_state", "save", "set_rng_state"]

SCHEMA = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; a kill at any moment leaves the old or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        torch.save({"schema": SCHEMA, **state}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: not a checkpoint, or of another schema version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}); remove it to start this part again"
        ) from error
    if state.get("schema") != SCHEMA:
        raise UserError(f"{path} has checkpoint schema {state.get('schema')}, this version reads {SCHEMA}")
    return state


def rng_state(device: torch.device) -> dict[str, Any]:
    """The generators that dropout and the like draw from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators back."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
