"""What a method declares it needs, so that the pool, the bank and the command line can act on it before training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Literal

__all__ = ["Needs"]


@dataclass(frozen=True)
class Needs:
    """Requirements of a method.

    ``logits``, ``labels``, ``logit_grads``, ``own_step`` and ``peers`` as a bool, on which nothing ever
    acted, are accepted for one more version.

    Attributes:
        features: taps to read, by name, as whole maps or pooled over space.
        heads: mentors' own classifiers are called.
        ids: sample ids are needed.
        epoch: the rule itself asks for the epoch (a schedule does so anyway).
        calibration: mentors' held-out scores are needed (:class:`classroomkd.classroom.Calibration`).
        sgd: the student's optimiser must be SGD (virtual steps follow its rule).
        mentors: the smallest number of mentors that makes sense.
        distributions: the task's answers must be distributions (:meth:`Task.distributions`), which not every task has.
        whole_batch: the rule compares the samples of a batch with each other, so a small remainder distorts it.
        truth: the mentors' terms need labels: without any of them there is nothing to learn.
        peers: the fewest and the most networks that are trained beside the student (None: any number); (0, 0): it
            takes none, and none is run for it.
        teachers: how many of these networks are teachers, which learn from labels alone and teach the others.
        selves: every network that is trained has a mentor of its own, what it was after an earlier training.
        branches: how many branches the student is cut into, itself the first of them; 1: it is whole. The others are
            trained with it and are its peers.
        cut: the place behind which, a name or a role.
        views: how many views of each sample a step shows, one a branch; 1: all see the same.
        averaged: averages of the student and its branches take part in the loss (:class:`.averaged.Averaged`).
        learned: it goes on with what the method itself learned in the stage that this one begins from
            (:meth:`Method.take_over`).
        prepare: how many training samples it looks at, once, before the first step (:meth:`Method.prepare`); 0: none.
        prepare_norm: how the trainees' BatchNorm acts in that look: by the ``batch``, whose statistics nothing keeps,
            or by its ``running`` statistics, which a new network does not have yet.
    """

    _: KW_ONLY
    features: Mapping[str, Literal["map", "pooled"]] = field(default_factory=dict)
    heads: bool = False
    ids: bool = False
    epoch: bool = False
    calibration: bool = False
    sgd: bool = False
    mentors: int = 1
    distributions: bool = False
    whole_batch: bool = False
    truth: bool = False
    peers: tuple[int, int | None] = (0, 0)
    teachers: int = 0
    selves: bool = False
    learned: bool = False
    branches: int = 1
    cut: str = "@stage:-2"
    views: int = 1
    averaged: bool = False
    prepare: int = 0
    prepare_norm: Literal["batch", "running"] = "running"
    logits: InitVar[bool | None] = None
    labels: InitVar[bool | None] = None
    logit_grads: InitVar[bool | None] = None
    own_step: InitVar[bool | None] = None

    def __post_init__(self, *old: bool | int | None) -> None:
        names = ("logits", "labels", "logit_grads", "own_step")
        given = [name for name, value in zip(names, old, strict=True) if value is not None]
        peers: object = self.peers
        if isinstance(peers, bool):
            given.append("peers")
            object.__setattr__(self, "peers", (0, 0))
        if given:
            text = f"Needs({', '.join(given)}) acts on nothing and goes with the next version; leave it out"
            warnings.warn(text, DeprecationWarning, stacklevel=3)

    @property
    def takes_peers(self) -> bool:
        """Whether the recipe's peers are trained beside the student."""
        return self.peers[1] != 0

    @property
    def trains_others(self) -> bool:
        """Whether anything is trained beside the student: peers or branches."""
        return self.takes_peers or self.branches > 1
