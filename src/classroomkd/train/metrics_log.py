"""``metrics.jsonl`` of a training: a checksum in each line, on the disk before a checkpoint counts it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from classroomkd._files import atomic_write_text, open_inside, writing
from classroomkd._stored import MOST_LOG, Damaged, log_line, parse_log_line, plain, trusted

__all__ = ["Log", "open_log"]


class Log:
    """``metrics.jsonl`` of a training, one line a call; ``lines`` is how many there are."""

    def __init__(self, path: Path | None, lines: int) -> None:
        self._path, self.lines = path, lines

    def __call__(self, line: dict[str, Any]) -> None:
        """Append a line."""
        self.lines += 1
        if self._path is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with writing(self._path), os.fdopen(open_inside(self._path, flags), "a") as file:
                file.write(log_line(line) + "\n")

    def stored(self) -> int:
        """How many lines there are, once the disk has them; a checkpoint may count these."""
        if self._path is not None and self.lines:
            with writing(self._path), os.fdopen(open_inside(self._path, os.O_WRONLY | os.O_APPEND), "a") as file:
                os.fsync(file.fileno())
        return self.lines


class _Line(BaseModel, extra="allow"):
    step: float


_LINE = TypeAdapter(_Line)


def _ignore(event: dict[str, Any]) -> None:
    pass


def open_log(
    folder: Path | None,
    step: int,
    lines: int | None = None,
    notify: Callable[[dict[str, Any]], None] = _ignore,
) -> Log:
    """Open ``metrics.jsonl`` in a folder (None: nowhere) for what comes after a step.

    Args:
        folder: of the training.
        step: an earlier attempt's lines of later steps go.
        lines: how many lines are done, where it is known; the others go.
        notify: called with a note that names the lines that were damaged, which go too.
    """
    if folder is None:
        return Log(None, lines or 0)
    path = folder / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept, damaged = [], []
    if step and path.exists():
        with trusted(path, "remove it to begin a new one"):
            there = plain(path, MOST_LOG).decode("utf-8", errors="replace").split("\n")[:-1]  # the last has no end
        for number, text in enumerate(there[:lines], start=1):
            try:
                if parse_log_line(text, _LINE).step <= step:
                    kept.append(text)
            except Damaged:
                damaged.append(number)
    if damaged:
        some = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged[:5]))}{', …' * (len(damaged) > 5)}"
        notify({"event": "note", "text": f"{path}: {some} damaged, and left out"})
    atomic_write_text(path, "".join(line + "\n" for line in kept))
    return Log(path, len(kept))
