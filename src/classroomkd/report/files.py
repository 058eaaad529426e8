"""Reading what a run writes: JSON whole or refused by name, logs as far as they go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from classroomkd._printable import printable
from classroomkd._stored import MOST_LOG, Damaged, parse_log_line, plain, trusted
from classroomkd._stored import read_json as stored_json

__all__ = ["read_json", "read_log", "read_metrics"]

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Line(BaseModel, extra="allow"):
    """What is read of a line; what else there is stays as it is."""

    step: Finite
    kind: str = ""
    mentors: dict[str, Any] | None = None


LINE = TypeAdapter(Line)


def read_json(file: Path) -> Any:
    """Parse one JSON file, control characters in text written out; :class:`UserError` when it cannot be read or ends in
    the middle."""
    remedy = "go on with the run by the same command and --resume, which writes it anew"
    return printable(stored_json(file, ANYTHING, remedy=remedy))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Records of one ``metrics.jsonl`` in order; an absent file gives none, and damaged lines are left out.

    After a resume, steps that were done twice are kept once: the later record wins.

    Raises:
        UserError: it is no file that can be read.
    """
    return read_log(path)[0]


def read_log(path: str | Path) -> tuple[list[dict[str, Any]], list[int]]:
    """See :func:`read_metrics`; also the numbers of the lines that were left out (from 1), but for a last one without
    its end, where a run was killed while writing."""
    file = Path(path)
    if not os.path.lexists(file):
        return [], []
    with trusted(file, "remove it to do without"):
        content = plain(file, MOST_LOG).decode("utf-8", errors="replace")
    whole, lines = content.endswith("\n"), content.removesuffix("\n").split("\n")
    records: dict[tuple[str, float], dict[str, Any]] = {}
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_log_line(line, LINE).model_dump(exclude_unset=True)
        except Damaged:
            if number < len(lines) or whole:
                damaged.append(number)
            continue
        key = (record.get("kind", ""), float(record["step"]))
        records.pop(key, None)  # re-inserted at its later place
        records[key] = record
    return sorted(records.values(), key=lambda record: float(record["step"])), damaged
