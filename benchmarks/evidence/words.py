"""Figures as tables and sentences write them: scores in percent, differences in points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evidence.protocol import Compared, Line
from classroomkd.report.statistics import Difference

__all__ = ["against", "cost", "gain", "score", "setting"]

MARKS = {"gain": "▲ ", "loss": "▼ ", "equal": "≈ ", "unclear": ""}


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def score(line: Line, of: str = "scores") -> str:
    """Mean and standard deviation over the seeds."""
    values = getattr(line, of)
    mean = sum(values.values()) / len(values)
    return f"{100 * mean:.1f}" + ("" if line.sd is None or of != "scores" else f" ± {100 * line.sd:.1f}")


def gain(difference: Difference | None) -> str:
    """A paired difference with its 95 % interval."""
    if difference is None or difference.mean is None:
        return "–"
    if difference.low is None or difference.high is None:
        return f"{_signed(difference.mean)} (one seed)"
    low, high = (f"{100 * value:.1f}".replace("-", "−") for value in (difference.low, difference.high))
    return f"{_signed(difference.mean)} [{low}, {high}]"


def against(compared: Compared | None) -> str:
    """The difference, marked where Holm's test tells it from 0, or where it is equal within the margin."""
    return "–" if compared is None else MARKS[compared.verdict] + gain(compared.difference)


def cost(line: Line) -> str:
    """A step over the student alone."""
    return "–" if line.cost is None else f"{line.cost:.2f}×"


def setting(values: Mapping[str, Any]) -> str:
    """What was chosen on the validation part."""
    said = [f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}" for key, value in values.items()]
    return ", ".join(said) or "default"
