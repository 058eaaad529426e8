"""Stratified splits and subsets that are the same on every machine: an order by splitmix64 of (seed, purpose, sample
id).

A sample's place in the order depends on its own id and the seed only, so a larger subset contains the smaller one up to
rounding, and skipping an unreadable file does not reshuffle the rest (shards aside, which are made by rank). Does not
import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from classroomkd.data import rng
from classroomkd.data.spec import DataSettings, shard_numbers
from classroomkd.errors import UserError

__all__ = ["PURPOSES", "counts_for_fraction", "counts_for_total", "shard", "stratified", "take", "three_parts"]

Samples = TypeVar("Samples")
Ints = NDArray[np.int64]

PURPOSES = {"test": 1, "val": 2, "limit": 3, "test_limit": 4, "student": 5, "mentor": 6, "shard": 7, "labels": 8}
"""Streams that must not share an order: the val split of what a limit left is not a piece of the same queue."""


def counts_for_fraction(per_class: Ints, fraction: float) -> Ints:
    """How many of each class (K,) go to a part that takes ``fraction`` of everything.

    Rounded half up; at least 1 where the class has two or more, and never all of it (one stays behind).
    """
    if fraction <= 0:
        return np.zeros_like(per_class)
    wanted = np.floor(per_class * fraction + 0.5).astype(np.int64)
    return np.where(per_class >= 2, np.clip(wanted, 1, per_class - 1), 0)


def counts_for_total(per_class: Ints, total: int) -> Ints:
    """How many of each class (K,) make ``total`` in the data's own proportions (largest remainders, first class on
    ties).

    No class that exists is left without a sample while ``total`` allows it.
    """
    everything = int(per_class.sum())
    if total >= everything:
        return per_class.copy()
    exact = per_class * total
    counts = exact // everything
    order = np.argsort(-(exact % everything), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    for empty in np.flatnonzero((counts == 0) & (per_class > 0)):
        donor = int(np.argmax(counts))
        if counts[donor] > 1:
            counts[donor] -= 1
            counts[empty] += 1
    return counts


def take(target: Ints, ids: Ints, counts: Ints, *, seed: int, purpose: str) -> Ints:
    """Places (ascending) of ``counts[k]`` samples of each class k, drawn by the order of (seed, purpose, id).

    ``target`` and ``ids`` are (N,); ``counts`` is (K,), each at most the number of samples of that class.
    """
    order, rank = _ranked(target, ids, seed, purpose)
    return np.sort(order[rank < counts[target[order]]]).astype(np.int64)


def shard(target: Ints, ids: Ints, number: int, shards: int, *, seed: int) -> Ints:
    """Places (ascending) of the ``number``-th (from 1) of ``shards`` equal shards.

    ``target`` and ``ids`` are (N,). Of a class of n samples the one of rank r (from 0) is of shard
    r · ``shards`` // n + 1:
    the shards are disjoint, together they are everything, and their counts of a class differ by at most one. A
    sample that is missing moves at most one of its class from each shard into the next or the one before.
    """
    order, rank = _ranked(target, ids, seed, "shard")
    size = np.bincount(target).astype(np.int64)[target[order]]
    return np.sort(order[rank * shards // size == number - 1]).astype(np.int64)


def _ranked(target: Ints, ids: Ints, seed: int, purpose: str) -> tuple[Ints, Ints]:
    """Places (N,) by class and, in it, by (seed, purpose, id), and the rank in its class (N,) of each."""
    key = rng.keys(seed, np.int64(PURPOSES[purpose]), ids)
    order = np.lexsort((ids, key, target))
    ordered = target[order]
    return order, np.arange(len(target)) - np.searchsorted(ordered, ordered)


def stratified(target: Ints, ids: Ints, total: int, *, seed: int, purpose: str, classes: int | None = None) -> Ints:
    """Places (ascending) of a stratified subset of ``total`` samples; all of them when there are not more."""
    per_class = np.bincount(target, minlength=classes or 0).astype(np.int64)
    return take(target, ids, counts_for_total(per_class, total), seed=seed, purpose=purpose)


def three_parts(
    parts: Mapping[str, Samples],
    wanted: DataSettings,
    limited: Callable[[Samples, int | None, str], Samples],
    split_off: Callable[[Samples, float, str], tuple[Samples, Samples]],
    sharded: Callable[[Samples, int, int], Samples],
) -> dict[str, Samples]:
    """Train, val and test out of ``all`` or ``train`` and what else the source has; what it lacks is split off, or
    empty where it is only scored.

    ``limited`` takes samples, a limit and its purpose; ``split_off`` samples, a fraction and its purpose, and gives
    (what stays, what is split off); ``sharded`` samples, k and n, and gives the k-th of n shards. Test is split off
    before the shard is taken, so all shards have one test part; val after it, so it is a piece of the shard.

    Raises:
        UserError: a part would be split off, and its fraction is 0.
    """
    train = parts["all"] if "all" in parts else parts["train"]
    test, val = parts.get("test"), parts.get("val")
    if not wanted.splits(parts):
        nothing = split_off(train, 0.0, "test")[1]
        return {"train": train, "val": nothing if val is None else val, "test": nothing if test is None else test}
    if test is None:
        if wanted.test_fraction == 0:
            raise UserError("data.test_fraction: 0, but the source has no test part; give a fraction or data.test")
        train, test = split_off(train, wanted.test_fraction, "test")
    if wanted.shard is not None:
        train = sharded(train, *shard_numbers(wanted.shard))
    train = limited(train, wanted.limit, "limit")
    if val is None:
        if wanted.val_fraction == 0:
            raise UserError(
                "data.val_fraction: 0, but the best epoch is chosen on a validation part; give a fraction or data.val"
            )
        train, val = split_off(train, wanted.val_fraction, "val")
    return {"train": train, "val": val, "test": limited(test, wanted.test_limit, "test_limit")}
