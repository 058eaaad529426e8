"""Training checkpoints: the state of named components, from which a run goes on to the same weights.

They are read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Protocol

import torch

from classroomkd._files import atomic_write
from classroomkd._limits import check_zip
from classroomkd._sums import damage, forget, is_listed, listing, sum_of
from classroomkd.errors import UserError

__all__ = [
    "SCHEMA",
    "Checkpoint",
    "Component",
    "can_go_on",
    "load",
    "load_last",
    "rng_state",
    "save",
    "set_rng_state",
]

SCHEMA = 3  # 1 and 2 were one dictionary instead of components; 1 had no batch: it stood at the end of an epoch
_READ = (1, 2, SCHEMA)
_MOST = 100  # checkpoints that are looked for


class Component(Protocol):
    """What a checkpoint can keep: networks, optimisers, and what offers the same two methods."""

    def state_dict(self) -> dict[str, Any]:
        """The state: tensors, numbers, strings, and lists and dictionaries of them."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take a state up."""
        ...


class Checkpoint:
    """The components of a training, and the file that keeps their state.

    Args:
        path: of the file.
        components: by the name they have in the file.
    """

    def __init__(self, path: Path, components: Mapping[str, Component]) -> None:
        self.path, self.components = path, components

    def state(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The state of all components but some, by the last word of their names. All ranks must call it: a component
        may sum over them."""
        kept = {name: one for name, one in self.components.items() if name.rpartition(".")[2] not in without}
        return {name: one.state_dict() for name, one in kept.items()}

    def restore(self, first: bool = True, notify: Callable[[dict[str, Any]], None] | None = None) -> bool:
        """Take up the newest file that is whole; False where there is none. What it does not hold stays as it is.

        Args:
            first: whether this process writes, and so removes what is damaged.
            notify: called with a note for each file that is damaged.

        Raises:
            UserError: see :func:`load_last`.
        """
        state = load_last(self.path, first, notify)
        if state is None:
            return False
        if "learner" in state:
            state = _components_of(state)
        for name, component in self.components.items():
            if name in state:
                component.load_state_dict(state[name])
        return True


def _components_of(state: dict[str, Any]) -> dict[str, Any]:
    """The components of a checkpoint of schema 1 or 2."""
    student, method = "reader.module.", "method."
    learner, progress = state["learner"], ("epoch", "step", "best", "best_weights", "history")
    components = {
        "progress": {key: state[key] for key in progress}
        | {"batch": state.get("batch", 0), "lines": state.get("lines")},
        "student": {k.removeprefix(student): v for k, v in learner.items() if k.startswith(student)},
        "method": {k.removeprefix(method): v for k, v in learner.items() if k.startswith(method)},
        "optimizer": state["optimizer"],
        "average": state["ema"],
        "record": state["record"],
        "timer": {"seconds": state["seconds"]},
        "cost": state["cost"],
        "runtime": {"generators": state["rng"], "threads": state["threads"], "scaler": state["scaler"]},
    }
    if state["optimizer"] is None:  # of a training that had ended
        del components["method"]
    return {name: one for name, one in components.items() if one is not None}


def save(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Write a checkpoint atomically; a kill at any moment leaves the old or the new one, never a half.

    Args:
        path: ``last.pt``; the ones before it become ``last-1.pt``, ``last-2.pt``, … beside it.
        state: what it holds.
        keep: how many there are in all; earlier ones are removed.

    Raises:
        DiskFull: no room; it says for how many bytes. The old one stays.
    """
    names = [path, *(_before(path, number) for number in range(1, keep))]
    with ExitStack() as stack:

        def ready(temporary: Path) -> None:
            moves = [*takewhile(lambda move: move[0].is_file(), pairwise(names))]
            moved = {new.name: sum_of(old) for old, new in moves}
            stack.enter_context(listing(path.parent, {**moved, path.name: sum_of(temporary)}))
            for old, new in reversed(moves):
                _replace(old, new)

        with atomic_write(path, need=_bytes(state), ready=ready) as file:
            try:
                torch.save({"schema": SCHEMA, "sum": _digest(state), **state}, file)
            except RuntimeError as error:  # torch's writer hides what the file said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
    for number in range(keep, _MOST):
        if (earlier := _before(path, number)).exists():
            _remove(earlier)


def _before(path: Path, number: int) -> Path:
    """Where the checkpoint is that was written so many before the last one."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def _replace(old: Path, new: Path) -> None:
    """Make ``new`` what ``old`` is; ``old`` stays where the file system can link, so that there always is one."""
    link = new.with_name(f".{new.name}.{secrets.token_hex(6)}.tmp")
    try:
        os.link(old, link)
    except OSError:
        os.replace(old, new)
    else:
        os.replace(link, new)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    forget(path)


def load_last(
    path: Path, first: bool = True, notify: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, of ``last.pt`` and those before it; None where there is none at all.

    Args:
        path: ``last.pt``.
        first: whether this process writes: it removes those that are damaged, once one is found that is whole.
        notify: called with a note for each that is damaged.

    Raises:
        UserError: all are damaged, or one is of another schema version.
    """
    wrong: dict[Path, UserError] = {}
    for place in [place for number in range(_MOST) if os.path.lexists(place := _before(path, number))]:
        try:
            state = load(place)
        except _DamagedCheckpoint as error:
            wrong[place] = error
            continue
        for damaged, reason in wrong.items():
            if first:
                _remove(damaged)
            if notify is not None:
                why = str(reason).partition("; remove it")[0]
                notify({"event": "note", "text": f"{why}; training goes on from the one before, {place.name}"})
        return state
    if wrong:
        raise next(iter(wrong.values()))
    return None


def _bytes(value: Any) -> int:
    """About what a checkpoint takes: its tensors, and something for all else."""
    if isinstance(value, torch.Tensor):
        return value.nbytes + 256
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 16


def can_go_on(path: Path, first: bool = True) -> bool:
    """Whether there is a checkpoint, ``last.pt`` or one before it, to make what is damaged from.

    Where all are damaged they are removed (by the process that is ``first``): the training begins anew.
    """
    there = [place for number in range(_MOST) if (place := _before(path, number)).exists()]
    if any(damage(place) is None for place in there):
        return True
    for place in there if first else ():
        _remove(place)
    return False


class _DamagedCheckpoint(UserError):
    """Not what was written; the one before may be whole."""


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: not a checkpoint, damaged, or of another schema version.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no plain file")
        if is_listed(path) and (wrong := damage(path)) is not None:
            raise ValueError(f"it {wrong}")
        check_zip(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _DamagedCheckpoint(
            f"{path} cannot be read as a checkpoint ({error}); remove it to start this part again"
        ) from error
    if not isinstance(state, dict):
        raise _DamagedCheckpoint(f"{path} is no checkpoint of a training; remove it to start this part again")
    schema, digest = (state.pop(key, None) for key in ("schema", "sum"))
    if schema not in _READ:
        raise UserError(f"{path} has checkpoint schema {schema}, this version reads {SCHEMA}")
    if schema > 1 and digest != _digest(state):
        raise _DamagedCheckpoint(
            f"{path} is damaged (its content is not what was written); remove it to start this part again"
        )
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
