"""Stratified subsets of a part: what the student or one mentor may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from classroomkd.data import split
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError

__all__ = ["class_counts", "compact", "strata", "subset"]

Ints = NDArray[np.int64]


def class_counts(part: Part, classes: int) -> list[int]:
    """How many images of each of ``classes`` classes the part holds; those without a label are in none."""
    target = part.target[part.labelled].cpu()
    return [int(count) for count in torch.bincount(target, minlength=classes)]


def subset(part: Part, samples: int, *, seed: int = 0, purpose: str = "student") -> Part:
    """A stratified subset of ``samples`` images (all of them when there are not more), in the part's order; those
    without a label are a stratum of their own.

    Which samples follows from ``seed``, ``purpose`` (``student``, ``mentor``, ``limit``, …: streams that differ) and
    the ids, so a larger subset contains a smaller one up to rounding, on every machine.

    Raises:
        UserError: when ``samples`` is not positive.
    """
    if samples < 1:
        raise UserError(f"samples is {samples}; give at least 1")
    target, ids = strata(part)
    return part.subset(torch.from_numpy(split.stratified(target, ids, samples, seed=seed, purpose=purpose)))


def strata(part: Part, classes: int | None = None) -> tuple[Ints, Ints]:
    """The stratum of every sample (N,), which is its class, or one for all where targets are no classes; the ids (N,).

    Samples without a label are the stratum after the last: number ``classes``, where that is given.
    """
    target, ids = (np.asarray(value.cpu().numpy()) for value in (part.target, part.ids))
    if target.ndim > 1:
        return np.asarray(~part.labelled.cpu().numpy(), np.int64), ids
    unlabelled = target == UNLABELLED
    if unlabelled.any():
        last = int(target.max()) + 1 if classes is None else classes
        target = np.where(unlabelled, last, target)
    return target, ids


def compact(*parts: Part) -> tuple[Part, ...]:
    """The same parts over pixels without the rows that none of them uses (in memory only, below 90 % use)."""
    used: dict[int, list[Part]] = {}
    for part in parts:
        used.setdefault(id(part.pixels), []).append(part)
    smaller: dict[int, tuple[MemoryPixels, torch.Tensor]] = {}
    for key, sharing in used.items():
        pixels = sharing[0].pixels
        rows = torch.unique(torch.cat([part.rows for part in sharing]))
        if isinstance(pixels, MemoryPixels) and len(rows) < 0.9 * len(pixels):
            smaller[key] = (MemoryPixels(pixels.fetch(rows)), rows)

    def moved(part: Part) -> Part:
        if id(part.pixels) not in smaller:
            return part
        pixels, rows = smaller[id(part.pixels)]
        return replace(part, pixels=pixels, rows=torch.searchsorted(rows, part.rows))

    return tuple(moved(part) for part in parts)
