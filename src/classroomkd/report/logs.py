"""The log of one seed: of a training, or of all stages of an arm as one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from classroomkd.report.files import read_log
from classroomkd.report.summary import ArmInfo

__all__ = ["records_of", "starts"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a stage, whose folder is called so


def starts(arm: ArmInfo) -> tuple[tuple[str, float], ...]:
    """The stages of an arm, each with the epoch of the whole that it begins at."""
    lengths = [float(stage.epochs or 0) for stage in arm.stages]
    return tuple((stage.name, sum(lengths[:n])) for n, stage in enumerate(arm.stages))


def records_of(arm: ArmInfo, folder: Path, trouble: list[str]) -> list[dict[str, Any]]:
    """The lines of a seed's log, their epochs counted from the beginning of the first stage.

    Of the stages before the last the scores are there, where they are the student's: others taught in it, or others
    learned.

    Args:
        arm: whose.
        folder: of the seed.
        trouble: gets a sentence for each file of which something is damaged and left out.

    Raises:
        UserError: a log that cannot be read.
    """
    begun, found = starts(arm), list[dict[str, Any]]()
    for stage, (name, start) in zip(arm.stages[:-1], begun, strict=False):
        if "student" in stage.trainees and _NAME.fullmatch(name):
            lines = _read(folder / "stages" / name / "metrics.jsonl", trouble)
            found += _later([line for line in lines if line.get("kind") == "val"], start)
    return found + _later(_read(folder / "metrics.jsonl", trouble), begun[-1][1] if begun else 0.0)


def _later(lines: list[dict[str, Any]], epochs: float) -> list[dict[str, Any]]:
    if not epochs:
        return lines
    return [x | {"epoch": x["epoch"] + epochs} if isinstance(x.get("epoch"), int | float) else x for x in lines]


def _read(file: Path, trouble: list[str]) -> list[dict[str, Any]]:
    lines, damaged = read_log(file)
    if damaged:
        which = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged[:5]))}{', …' * (len(damaged) > 5)}"
        trouble.append(f"{file}: {which} damaged, and left out.")
    return lines
