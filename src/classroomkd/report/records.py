"""The logs of a run turned into series and tables: over time per seed, averaged over seeds, thinned for drawing.

Shapes: ``S`` seeds, ``M`` mentors, ``C`` classes, ``P`` points of a line (at most :data:`POINTS`). What was not logged
is ``nan`` in arrays; a log that is absent gives an empty series, never an error: half a run still has a report.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, TypeAdapter

from classroomkd._printable import printable
from classroomkd._stored import read_json as stored_json
from classroomkd.errors import UserError
from classroomkd.report.logs import records_of, starts
from classroomkd.report.squares import Square, square_of
from classroomkd.report.summary import ArmInfo, Summary

__all__ = ["MEASURES", "Activity", "ArmLog", "Curve", "Teaching", "nan_mean", "read_arm", "read_run", "thin"]

Array = npt.NDArray[np.float64]
POINTS = 300  # of one line in the page: more than a screen has room for, few enough to stay small
MEASURES = ("active", "weight", "temperature")
EPOCH = -2  # the row of a stacked record that holds its epoch; the last one is the share without any mentor


class Taught(BaseModel, extra="allow"):
    """What is read of ``teaching.json``."""

    mentors: list[str] = []
    classes: list[str] = []
    count: list[float | None] = []
    active: list[list[float | None]] = []
    weight: list[list[float | None]] = []
    temperature: list[list[float | None]] = []
    test_per_class: list[float | None] | None = None


TAUGHT = TypeAdapter(Taught)


@dataclass(frozen=True)
class Curve:
    """One line: ``x`` (P,) epochs and ``y`` (P,) values."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Activity:
    """Who taught over time, averaged over seeds: ``x`` (P,) epochs; each measure ``(M, P)``; ``none_active`` (P,)."""

    mentors: tuple[str, ...]
    x: Array
    active: Array
    weight: Array
    temperature: Array
    none_active: Array


@dataclass(frozen=True)
class Teaching:
    """Who taught what, averaged over seeds: each measure ``(M, C)``, ``count`` (C,) labels of the student."""

    mentors: tuple[str, ...]
    classes: tuple[str, ...]
    active: Array
    weight: Array
    temperature: Array
    count: Array
    seeds: int


@dataclass
class ArmLog:
    """Everything logged for one arm; seeds without logs are absent from the mappings."""

    arm: ArmInfo
    accuracy: dict[int, Curve] = field(default_factory=dict)
    mean_accuracy: Curve | None = None
    activity: Activity | None = None
    teaching: Teaching | None = None
    per_class: dict[int, Array] = field(default_factory=dict)  # seed -> (C,) test accuracy of the student
    trouble: list[str] = field(default_factory=list)
    trainees: dict[str, Curve] = field(default_factory=dict)  # mean over seeds, the student's and the ensemble's too
    disagreement: Curve | None = None  # the share of pairs of trainees that differ
    square: Square | None = None  # who taught whom, of trainees and mentors
    stages: tuple[tuple[str, float], ...] = ()  # each with the epoch it begins at, of an arm that has some

    @property
    def label(self) -> str:
        """The arm's name in tables and legends."""
        return self.arm.label


def read_run(summary: Summary) -> list[ArmLog]:
    """The logs of every arm of a run, in the order of the recipe."""
    return [read_arm(summary, arm) for arm in summary.arms]


def read_arm(summary: Summary, arm: ArmInfo) -> ArmLog:
    """The logs of one arm. Damaged files are named in ``trouble`` and left out."""
    log = ArmLog(arm, stages=starts(arm))
    folder = summary.root / (arm.folder or arm.label)
    train: list[list[dict[str, Any]]] = []
    vals: list[list[dict[str, Any]]] = []
    tables: list[Taught] = []
    taught_by: list[list[dict[str, Any]]] = []
    for seed, seed_folder in _seed_folders(folder, sorted(summary.scores(arm.label))):
        teaching = seed_folder / "teaching.json"
        try:
            records = records_of(arm, seed_folder, log.trouble)
        except UserError as error:
            log.trouble.append(str(error))
            continue
        if len(curve := _accuracy(records)):
            log.accuracy[seed] = curve
        taught_by.append([record for record in records if record.get("kind") == "train"])
        vals.append([record for record in records if record.get("kind") == "val"])
        if steps := [record for record in records if record.get("kind") == "train" and record.get("mentors")]:
            train.append(steps)
        try:
            if not teaching.exists():
                continue
            taught = stored_json(teaching, TAUGHT, remedy="remove it to do without")
        except UserError as error:
            log.trouble.append(str(error))
            continue
        tables.append(Taught.model_validate(printable(taught.model_dump())))
        scores = _row(taught.test_per_class, len(summary.data.classes))
        if np.isfinite(scores).any():
            log.per_class[seed] = scores
    if log.accuracy:
        log.mean_accuracy = _mean_curve(list(log.accuracy.values()))
    if any(record.get("peers") for records in vals for record in records):
        log.trainees, log.disagreement = _trainees(vals)
        trained = [name for name in log.trainees if name != "ensemble"]
        log.square = square_of(taught_by, trained, [mentor.name for mentor in summary.mentors])
    log.teaching = _teaching(tables, summary.data.classes)
    names = log.teaching.mentors if log.teaching else [mentor.name for mentor in summary.mentors]
    log.activity = _activity(train, names)
    return log


def thin(values: Array, limit: int = POINTS) -> Array:
    """Average neighbours of ``values`` (..., P) until at most ``limit`` points remain; ``nan`` is left out of means."""
    points = values.shape[-1]
    if points <= limit:
        return values
    edges = np.linspace(0, points, limit + 1).round().astype(int)
    return np.stack([nan_mean(values[..., a:b], -1) for a, b in itertools.pairwise(edges)], -1)


def _even(steps: Array, values: Array) -> Array:
    """Join records (..., P) that cover less than half the usual number of steps with the one after them.

    A record ends at its step and starts after the one before it, so the last of an epoch may stand for a single step,
    far noisier than its neighbours. Means are weighted by steps; the epoch is that of the last record.
    """
    covers = np.diff(steps, prepend=0.0)
    enough = 0.5 * float(np.median(covers))
    points, start = [], 0
    for end in range(1, len(steps) + 1):
        if covers[start:end].sum() < enough and end < len(steps):
            continue
        part, weight = values[..., start:end], covers[start:end] * np.isfinite(values[..., start:end])
        with np.errstate(invalid="ignore"):
            points.append((np.nan_to_num(part) * weight).sum(-1) / weight.sum(-1))
        points[-1][EPOCH] = values[EPOCH, end - 1]
        start = end
    return np.stack(points, -1)


def _seed_folders(folder: Path, finished: Sequence[int]) -> list[tuple[int, Path]]:
    """Finished seeds; while there are none, those in progress (their lines would otherwise bend the means)."""
    if finished:
        return [(seed, folder / f"seed{seed}") for seed in finished]
    seeds = [(child.name.removeprefix("seed"), child) for child in folder.glob("seed*")] if folder.is_dir() else []
    return sorted((int(digits), child) for digits, child in seeds if digits.isdigit())


def _accuracy(records: Sequence[dict[str, Any]]) -> Curve:
    rows = [record for record in records if record.get("kind") == "val"]
    return _by_epoch(rows, [record.get("accuracy") for record in rows])


def _by_epoch(rows: Sequence[dict[str, Any]], values: Sequence[Any]) -> Curve:
    x, y = _numbers([r.get("epoch") for r in rows]), _numbers(values)
    keep = np.isfinite(x) & np.isfinite(y)
    return Curve(thin(x[keep]), thin(y[keep]))


def _trainees(runs: Sequence[Sequence[dict[str, Any]]]) -> tuple[dict[str, Curve], Curve | None]:
    """The mean over seeds of every trainee's score and the ensemble's, and of their disagreement."""
    peers = [[r["peers"] if isinstance(r.get("peers"), dict) else {} for r in rows] for rows in runs]
    names = dict.fromkeys(name for rows in peers for line in rows for name in line)

    def mean(values: Sequence[Sequence[Any]]) -> Curve | None:
        curves = [_by_epoch(rows, some) for rows, some in zip(runs, values, strict=True)]
        curves = [curve for curve in curves if len(curve)]
        return _mean_curve(curves) if curves else None

    found = {"student": mean([[r.get("accuracy") for r in rows] for rows in runs])}
    found |= {str(name): mean([[line.get(name) for line in rows] for rows in peers]) for name in names}
    found["ensemble"] = mean([[r.get("ensemble") for r in rows] for rows in runs])
    apart = mean([[r.get("disagreement") for r in rows] for rows in runs])
    return {name: curve for name, curve in found.items() if curve is not None}, apart


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over the curves at the longest curve's epochs, over those that reach so far."""
    longest = max(curves, key=len)
    y = np.stack([np.interp(longest.x, c.x, c.y, right=np.nan) for c in curves])
    return Curve(longest.x, nan_mean(y, 0))


def _activity(runs: Sequence[Sequence[dict[str, Any]]], names: Sequence[str]) -> Activity | None:
    if not runs:
        return None
    count = max(len(_list(record["mentors"].get("active"))) for records in runs for record in records)
    if count == 0:
        return None
    by_step: dict[float, list[Array]] = {}
    for records in runs:
        for record in records:
            mentors = record["mentors"]
            rows = [_row(mentors.get(measure), count) for measure in MEASURES]
            rest = _numbers([record.get("epoch"), mentors.get("none_active")])
            by_step.setdefault(float(record["step"]), []).append(np.concatenate([*rows, rest]))
    steps = np.array(sorted(by_step))
    stacked = np.stack([nan_mean(np.stack(by_step[step]), 0) for step in steps], -1)
    stacked = thin(_even(steps, stacked), POINTS)
    active, weight, temperature = stacked[:-2].reshape(3, count, -1)
    if len(names) != count:
        names = [f"mentor {k + 1}" for k in range(count)]
    return Activity(tuple(names), stacked[-2], active, weight, temperature, stacked[-1])


def _teaching(records: Sequence[Taught], classes: Sequence[str]) -> Teaching | None:
    taught = [one for one in records if one.active and one.mentors]
    if not taught:
        return None
    mentors, names = taught[0].mentors, classes or taught[0].classes
    shape = (len(mentors), len(names))
    taught = [one for one in taught if all(_shape(getattr(one, measure)) == shape for measure in MEASURES)]
    if not taught or 0 in shape:
        return None

    def mean(measure: str) -> Array:
        return nan_mean(np.stack([[_numbers(row) for row in getattr(one, measure)] for one in taught]), 0)

    active, weight, temperature = map(mean, MEASURES)
    counts = nan_mean(np.stack([_row(one.count, shape[1]) for one in taught]), 0)
    return Teaching(tuple(mentors), tuple(names), active, weight, temperature, counts, len(taught))


def _shape(rows: list[list[Any]]) -> tuple[int, int]:
    """Of a table whose rows are equally long; else one that no table has."""
    widths = {len(row) for row in rows}
    return len(rows), widths.pop() if len(widths) == 1 else -1


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _row(values: Any, length: int) -> Array:
    numbers = _numbers(_list(values))[:length]
    return np.concatenate([numbers, np.full(length - len(numbers), np.nan)])


def _numbers(values: Sequence[Any]) -> Array:
    known = (isinstance(value, int | float) and math.isfinite(value) for value in values)
    return np.array([float(value) if is_known else math.nan for value, is_known in zip(values, known, strict=True)])


def nan_mean(values: Array, axis: int) -> Array:
    """The mean of what is not ``nan`` along ``axis``; ``nan`` where nothing else is there."""
    with warnings.catch_warnings():  # an all-nan slice stays nan, as it should
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))
