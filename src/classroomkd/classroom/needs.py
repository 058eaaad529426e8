"""What a method declares it needs, so that the pool, the bank and the command line can act on it before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Needs"]


@dataclass(frozen=True)
class Needs:
    """Requirements of a method.

    Attributes:
        logits: mentors' predictions are read.
        features: taps to read, by name, as whole maps or pooled over space.
        heads: mentors' own classifiers are called.
        labels: targets are needed (no unlabelled data).
        ids: sample ids are needed.
        epoch: the rule itself asks for the epoch (a schedule does so anyway).
        views: how many views of each sample a step sees.
        peers: networks trained in the same run are needed.
        logit_grads: per-mentor gradients with respect to the student's logits are needed.
        calibration: mentors' held-out scores are needed (:class:`classroomkd.classroom.Calibration`).
        own_step: the method replaces the forward–loss–backward–update step and cannot live in a foreign loop.
        sgd: the student's optimiser must be SGD (virtual steps follow its rule).
        mentors: the smallest number of mentors that makes sense.
        whole_batch: the rule compares the samples of a batch with each other, so a small remainder distorts it.
    """

    logits: bool = True
    features: Mapping[str, Literal["map", "pooled"]] = field(default_factory=dict)
    heads: bool = False
    labels: bool = True
    ids: bool = False
    epoch: bool = False
    views: int = 1
    peers: bool = False
    logit_grads: bool = False
    calibration: bool = False
    own_step: bool = False
    sgd: bool = False
    mentors: int = 1
    whole_batch: bool = False
