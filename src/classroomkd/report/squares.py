"""Who taught whom, out of the logs of networks that learned together: a square of trainees and mentors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Square", "square_of"]

Array = npt.NDArray[np.float64]
STUDENT = "student"


@dataclass(frozen=True)
class Square:
    """What networks add to each other's loss, the mean over the last epoch and over seeds.

    Attributes:
        names: of trainees, the student first, and of the mentors that taught one.
        trainees: how many of them are trainees.
        values: ``(T, L)``: what the t-th adds to the loss of the l-th; ``nan`` where it does not teach it.
    """

    names: tuple[str, ...]
    trainees: int
    values: Array


def square_of(
    runs: Sequence[Sequence[dict[str, Any]]], trainees: Sequence[str], mentors: Sequence[str]
) -> Square | None:
    """The square of one arm; None where nobody is said to have taught anybody.

    Args:
        runs: by seed its training lines of ``metrics.jsonl``.
        trainees: names in the order of the recipe, the student's too.
        mentors: likewise; those that taught nobody are left out.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for lines in runs:
        for pair, value in _last_epoch(lines).items():
            sums.setdefault(pair, []).append(value)
    if not sums:
        return None
    seen = {name for pair in sums for name in pair}
    learners = dict.fromkeys([STUDENT, *trainees, *(learner for learner, _ in sums)])
    names = tuple(dict.fromkeys([*learners, *(name for name in mentors if name in seen), *sorted(seen)]))
    values = np.full((len(names), len(names)), np.nan)
    for (learner, teacher), found in sums.items():
        values[names.index(teacher), names.index(learner)] = sum(found) / len(found)
    return Square(names, len(learners), values)


def _last_epoch(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """By who learns and who teaches the mean over the last epoch that was logged, weighted by steps."""
    pairs: dict[tuple[str, str], tuple[float, float]] = {}
    before, last = 0.0, max((epoch for line in lines if (epoch := _number(line.get("epoch"))) is not None), default=0.0)
    for line in lines:
        step, epoch = _number(line.get("step")), _number(line.get("epoch"))
        if step is None or epoch is None:
            continue
        steps, before = max(step - before, 0.0), step
        if epoch <= math.ceil(last) - 1:
            continue
        for pair, value in _pairs(line.get("given")):
            total, count = pairs.get(pair, (0.0, 0.0))
            pairs[pair] = total + steps * value, count + steps
    return {pair: total / count for pair, (total, count) in pairs.items() if count > 0}


def _pairs(given: Any) -> list[tuple[tuple[str, str], float]]:
    rows = given.items() if isinstance(given, dict) else ()
    cells = [(str(learner), row) for learner, row in rows if isinstance(row, dict)]
    found = [((learner, str(teacher)), _number(value)) for learner, row in cells for teacher, value in row.items()]
    return [(pair, value) for pair, value in found if value is not None]


def _number(value: Any) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_one else None
