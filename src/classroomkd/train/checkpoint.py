"""Training checkpoints: everything a run needs to go on to the same weights, read with ``weights_only=True``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from classroomkd._files import atomic_write
from classroomkd._limits import check_zip
from classroomkd.errors import UserError

__all__ = ["SCHEMA", "load", "rng_state", "save", "set_rng_state"]

SCHEMA = 2  # 1 had no batch: it stood at the end of an epoch
_READ = (1, SCHEMA)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; a kill at any moment leaves the old or the new one, never a half.

    Raises:
        DiskFull: no room; it says for how many bytes. The old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, need=_bytes(state)) as file:
        try:
            torch.save({"schema": SCHEMA, "sum": _digest(state), **state}, file)
        except RuntimeError as error:  # torch's writer hides what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _bytes(value: Any) -> int:
    """About what a checkpoint takes: its tensors, and something for all else."""
    if isinstance(value, torch.Tensor):
        return value.nbytes + 256
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 16


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: not a checkpoint, damaged, or of another schema version.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no plain file")
        check_zip(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}); remove it to start this part again"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of a training; remove it to start this part again")
    schema, told = (state.pop(key, None) for key in ("schema", "sum"))
    if schema not in _READ:
        raise UserError(f"{path} has checkpoint schema {schema}, this version reads {SCHEMA}")
    if schema == SCHEMA and told != _digest(state):
        raise UserError(f"{path} is damaged (its content is not what was written); remove it to start this part again")
    return state


def _digest(state: Any) -> str:
    """A checksum of what a checkpoint holds: torch's reader lets a flipped byte of a tensor pass."""
    found = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype}{tuple(value.shape)}".encode())
            found.update(value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            for key, inner in value.items():
                found.update(repr(key).encode())
                take(inner)
        elif isinstance(value, list | tuple):
            found.update(f"{len(value)} of".encode())
            for inner in value:
                take(inner)
        else:
            found.update(repr(value).encode())

    take(state)
    return found.hexdigest()


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
