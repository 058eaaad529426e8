"""What a finished training leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from classroomkd.train.gradient_scale import Scale
from classroomkd.train.peers import PeerResult
from classroomkd.train.scoring import Score
from classroomkd.train.watch import Found

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """What a finished training leaves; the student holds its last raw weights.

    Attributes:
        val: scores on the validation part, one an evaluation.
        best_epoch: after which epoch the best of them came; -1 = none.
        best: the student's weights then.
        ema: the averaged student's.
        teaching: who taught what, by mentor and topic.
        steps: how many.
        seconds: spent, earlier attempts included.
        cost: of a step over the student alone.
        scale: how loud the mentors were at the start.
        not_finite: answers that were not, by mentor.
        left_out: samples of an epoch that no step saw.
        best_value: the best score; None where nothing was scored.
        peers: what was trained beside the student, by name.
        findings: figures of the method's look before the first step, by name.
    """

    val: list[Score]
    best_epoch: int
    best: dict[str, torch.Tensor] | None
    ema: dict[str, torch.Tensor] | None
    teaching: dict[str, Any]
    steps: int
    seconds: float
    cost: dict[str, float]
    scale: Scale | None = None
    not_finite: Found = field(default_factory=dict)
    left_out: int = 0
    best_value: float | None = None
    peers: dict[str, PeerResult] = field(default_factory=dict)
    findings: dict[str, float] = field(default_factory=dict)
