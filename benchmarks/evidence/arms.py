"""The arms that several studies have in common, the most important first, and what is tuned of each."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.study import Arm

__all__ = ["ALONE", "CORE", "EVERY", "arm"]


def arm(name: str, knob: str = "temperature", *values: Any, label: str = "", **options: Any) -> Arm:
    """An arm of one method; ``label`` where the method's name does not say enough."""
    return Arm(label or name, ({"name": name, **options},), knob, values)


ALONE = Arm("none", knob="train.weight_decay")

CORE: tuple[Arm, ...] = (
    ALONE,
    arm("average"),
    arm("classroomkd", "tau"),
    arm("kd"),
    arm("dist"),
    arm("camkd", "feature_weight"),
    arm("average", "feature_weight", feature_weight=100.0, label="average with hints"),
    arm("mmkd", "feature_weight"),
    arm("ebkd"),
    arm("aekd"),
    arm("random"),
    arm("dkd", "beta", 1, 2, 8),
)

EVERY: tuple[Arm, ...] = (
    *CORE,
    arm("classroomkd", "tau", rule="batch", label="classroomkd batch"),
    arm("classroomkd", "tau", rule="rank", label="classroomkd rank"),
    arm("dtkd"),
    Arm("takd", ({"name": "takd"},), assistants=True),
    arm("amtml"),
    arm("fitnet", "weight"),
    arm("at", "weight"),
    arm("sp", "weight"),
    arm("rkd", "weight"),
    arm("crd", "weight"),
    arm("ital", "weight"),
)
