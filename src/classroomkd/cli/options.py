"""What the verbs share. Imports nothing heavy.

``JsonOutput`` is spelt and explained the same way everywhere; :func:`tell` says what the user should read;
:func:`resume_with` is what the user is told to type when a run is interrupted or stops.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["JsonOutput", "interrupted", "note_unlisted", "resume_with", "tell"]

JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_RESUME: ContextVar[str | None] = ContextVar("classroomkd_resume", default=None)


def tell(kind: str, text: str) -> None:
    """A sentence that the user should read, on stderr: a ``note``, about the ``data``, a ``warning``."""
    print(f"{kind}: {text}", file=sys.stderr)


def resume_with(command: str | None) -> None:
    """Remember the command that continues what is being done; None forgets it.

    ``Ctrl-C``, a stopped run and a full disk print it.
    """
    _RESUME.set(command)


def interrupted() -> str | None:
    """The command that continues the interrupted work, or None where nothing is left to continue."""
    return _RESUME.get()


def note_unlisted(path: Path) -> None:
    """Say on stderr that a run's file has no checksum, where it has none; files that lie in no run need none."""
    from classroomkd._sums import SUMS, unlisted

    ours = (path.parent / SUMS).exists() or any((folder / "recipe.yaml").exists() for folder in path.resolve().parents)
    if ours and (sentence := unlisted(path)) is not None:
        print(f"note: {sentence}", file=sys.stderr)
