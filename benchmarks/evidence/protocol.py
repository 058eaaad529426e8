"""The protocol in code: paired differences, Holm over a table, equality within a margin, convergence, equal time.

Scores are fractions; what is printed is in points. A seed is the unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from benchmarks.evidence.cells import NOWHERE, Cell, mentor_cell
from benchmarks.evidence.plan import curve, rows
from benchmarks.evidence.results import Store, took
from benchmarks.evidence.study import Panel, Study
from classroomkd.recipe.bank_spec import BankSpec
from classroomkd.report.statistics import Difference, paired, spread, t_cdf

__all__ = ["CONVERGED", "MARGIN", "Compared", "Line", "Table", "compared", "holm", "table"]

MARGIN = 0.005  # within which two arms are called equal
CONVERGED = 0.003  # what the student alone may gain from 1 to 1.5 times the epochs
LEVEL = 0.05

Scores = Mapping[int, float]


@dataclass(frozen=True)
class Compared:
    """An arm against another: the paired difference, its p, Holm's p over the table, and p of being apart by more than
    the margin (two one-sided tests)."""

    difference: Difference
    p: float | None = None
    adjusted: float | None = None
    apart: float | None = None

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` (Holm at 5 %), ``equal`` (within the margin at 5 %), else ``unclear``."""
        if self.adjusted is not None and self.adjusted < LEVEL and self.difference.mean is not None:
            return "gain" if self.difference.mean > 0 else "loss"
        return "equal" if self.apart is not None and self.apart < LEVEL else "unclear"


@dataclass(frozen=True)
class Together:
    """What networks that were trained together score, means over the seeds.

    Args:
        members: the student and its peers, by name.
        teachers: those of the peers that are, by name.
        ensemble: the members' mean probabilities.
        more: the ensemble less the mean of its members, by seed.
        disagreement: how often two members say different things.
    """

    members: Mapping[str, float]
    teachers: Mapping[str, float]
    ensemble: float | None = None
    more: Difference | None = None
    disagreement: float | None = None


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Args:
        name: of the arm.
        scores: of the last weights, by seed.
        best: of the weights that were best on the validation part, by seed.
        alone, base: against the student alone, and against the study's base arm.
        given, paid: against the student alone for as long: mentors owned already, and mentors trained for it.
        cost: a step over the student's alone.
        spent: how long its training takes over the student's alone, mentors paid.
        setting: what was chosen on the validation part.
        failures: seeds without a student, and why.
        versions: of its methods.
        owned: how long its training takes over the student's alone, mentors owned: a step's cost, times their number.
        together: where others were trained beside the student.
    """

    name: str
    scores: Scores
    best: Scores
    cost: float | None
    spent: float | None
    setting: Mapping[str, Any]
    failures: Mapping[int, str]
    versions: Mapping[str, int]
    owned: float | None = None
    together: Together | None = None
    alone: Compared | None = None
    base: Compared | None = None
    given: Difference | None = None
    paid: Difference | None = None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.scores.values())

    @property
    def sd(self) -> float | None:
        """Over the seeds; None for one."""
        return spread(self.scores.values()).sd


@dataclass(frozen=True)
class Table:
    """A panel's lines, the best on top, and where on its curve the student alone stands.

    Args:
        curve: share of the epochs to scores by seed, 1 included.
        gain: of the student alone from 1 to 1.5 times the epochs; None where that was not trained.
        lacking: arms with fewer seeds than wanted, and those that are not decided yet.
        mentors_vote: what the vote of the mentors scores.
    """

    lines: Sequence[Line]
    curve: Mapping[float, Scores]
    gain: Difference | None
    lacking: Sequence[str]
    mentors_vote: float | None = None

    @property
    def converged(self) -> bool | None:
        """None: not known."""
        return None if self.gain is None or self.gain.mean is None else self.gain.mean < CONVERGED

    def line(self, name: str) -> Line | None:
        """The line of an arm."""
        return next((line for line in self.lines if line.name == name), None)


def table(name: str, study: Study, panel: Panel, store: Store) -> Table:
    """What is known of a panel."""
    lines, lacking = [], [arm.name for arm in study.within(panel)]
    first = study.arms[0].name
    points: dict[float, Scores] = {}
    seconds: Mapping[int, float] = {}
    votes: list[float] = []
    for row in rows(name, study, panel, store):
        scores = _of(study, store.scores(row.cell))
        if row.arm.name == first:
            points[1.0] = scores
            seconds = _of(study, {seed: took(entry) for seed, entry in store.students(row.cell).items()})
        votes += [e["mentors_vote"] for e in store.students(row.cell).values() if "mentors_vote" in e]
        if set(scores) == set(study.seeds):
            lacking.remove(row.arm.name)
        if scores:
            lines.append(_line(study, store, row.cell, row.arm.name, scores, row.setting, seconds))
    points |= {share: found for share, c in curve(name, study, panel, store) if (found := _of(study, store.scores(c)))}
    points = {share: points[share] for share in sorted(points) if points[share]}
    compared_lines = _compare(lines, first, study.base, points)
    gain = paired(points[1.5], points[1.0]) if {1.0, 1.5} <= set(points) else None
    together = votes[0] if votes else None
    return Table(sorted(compared_lines, key=lambda line: -line.mean), points, gain, lacking, together)


def compared(a: Scores, b: Scores) -> Compared:
    """Arm a less arm b, by seed; Holm's p is left for the table."""
    difference = paired(a, b)
    if difference.n < 2 or difference.mean is None or difference.low is None or difference.low == difference.high:
        return Compared(difference)
    gaps = spread(a[seed] - b[seed] for seed in set(a) & set(b))
    assert gaps.sd is not None
    error, df = gaps.sd / math.sqrt(gaps.n), gaps.n - 1
    p = 2 * (1 - t_cdf(abs(difference.mean) / error, df))
    apart = max(t_cdf((difference.mean - MARGIN) / error, df), 1 - t_cdf((difference.mean + MARGIN) / error, df))
    return Compared(difference, p, None, apart)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p in the order given; None stays None and is not counted."""
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = highest
    return adjusted


def _of(study: Study, scores: Scores) -> dict[int, float]:
    """Without the seeds of the tuning."""
    return {seed: score for seed, score in scores.items() if seed in study.seeds}


def _line(
    study: Study,
    store: Store,
    cell: Cell,
    name: str,
    scores: Scores,
    setting: Mapping[str, Any],
    seconds: Mapping[int, float],
) -> Line:
    students = store.students(cell)
    costs = [entry["cost_ratio"] for entry in students.values() if "cost_ratio" in entry]
    plain = all(entry.get("name") == "none" for entry in cell.grid)
    cost = 1.0 if plain else median(costs) if costs else None
    best = {seed: students[seed].get("test_best", score) for seed, score in scores.items()}
    shown = {key.removeprefix("train."): value for key, value in setting.items() if key != "train.lr"}
    paid = _mentors_seconds(store, cell)
    took_over = None if cost is None else cost * cell.length
    spent = None if took_over is None or paid is None or not seconds else took_over + paid / median(seconds.values())
    failures = {seed: why for seed, why in store.failures(cell).items() if seed in study.seeds}
    others = [students[seed]["together"] for seed in scores if "together" in students[seed]]
    return Line(name, scores, best, cost, spent, shown, failures, cell.versions, took_over, _together(others))


def _together(found: Sequence[Mapping[str, Any]]) -> Together | None:
    if not found:
        return None
    members, teachers = (
        {name: fmean(each[part][name] for each in found) for name in found[0][part]} for part in ("members", "teachers")
    )
    ensembles = [each["ensemble"] for each in found if each.get("ensemble") is not None]
    if len(ensembles) < len(found):
        return Together(members, teachers)
    own = {place: each["ensemble"] for place, each in enumerate(found)}
    mean = {place: fmean(each["members"].values()) for place, each in enumerate(found)}
    differ = [each["disagreement"] for each in found if each.get("disagreement") is not None]
    return Together(members, teachers, fmean(ensembles), paired(own, mean), fmean(differ) if differ else None)


def _mentors_seconds(store: Store, cell: Cell) -> float | None:
    """Training of the mentors, and their answers to what the bank keeps: a forward pass is a third of a training's.

    Counted, not measured: answers are stored once, by whichever run asks first. None where it is not known what a
    mentor took: of assistants, whom a run trains.
    """
    recipe, total = cell.recipe(NOWHERE), 0.0
    bank = BankSpec.parse(recipe.bank)
    views = bank.views or (0 if bank.kind == "off" else recipe.train.epochs)  # online, a step's cost has them in it
    for mentor in cell.mentors:
        if mentor.made_from:
            continue  # a stage's, whose time is the arm's own
        own = mentor_cell(mentor)
        entry = store.students(own).get(0)
        if entry is None:
            return None
        batch = own.recipe(NOWHERE).train.batch_size
        shown = entry["steps"] * batch
        asked = views * (recipe.student.samples or shown / own.recipe(NOWHERE).train.epochs)
        total += took(entry) * (1 + asked / (3 * shown))
    return total


def _compare(lines: Sequence[Line], first: str, base: str, points: Mapping[float, Scores]) -> list[Line]:
    """The lines against the student alone, against the base, and against the student alone in the same time."""
    by_name = {line.name: line for line in lines}
    alone = [compared(line.scores, by_name[first].scores) if first in by_name else None for line in lines]
    other = [compared(line.scores, by_name[base].scores) if base in by_name else None for line in lines]
    made = []
    for found, name in ((alone, first), (other, base)):
        counted = [c.p if c is not None and line.name != name else None for line, c in zip(lines, found, strict=True)]
        made.append(
            [
                None if c is None or line.name == name else replace(c, adjusted=p)
                for line, c, p in zip(lines, found, holm(counted), strict=True)
            ]
        )
    return [
        replace(
            line,
            alone=a,
            base=b,
            given=_in_time(line, first, points, line.owned),
            paid=_in_time(line, first, points, line.spent),
        )
        for line, a, b in zip(lines, *made, strict=True)
    ]


def _in_time(line: Line, first: str, points: Mapping[float, Scores], share: float | None) -> Difference | None:
    """A line against the student alone after that share of its epochs; None where there is nothing to compare."""
    if share is None or not points or line.name == first:
        return None
    return paired(line.scores, _after(points, share))


def _after(points: Mapping[float, Scores], share: float) -> dict[int, float]:
    """The student alone after that share of the epochs, by seed: along its curve over the logarithm of the epochs, and
    never worse than after fewer, since whoever has more time need not use it."""
    known = sorted(points)
    seeds = set.intersection(*(set(scores) for scores in points.values()))
    best: dict[float, Scores] = {}
    for place in known:
        earlier = [best[p] for p in known if p < place]
        here = {seed: points[place][seed] for seed in seeds}
        best[place] = max([*earlier, here], key=lambda scores: fmean(scores.values()) if scores else 0.0)
    below = max((place for place in known if place <= share), default=known[0])
    above = min((place for place in known if place >= share), default=known[-1])
    if below == above or share <= below:
        return dict(best[below])
    part = math.log(share / below) / math.log(above / below)
    return {seed: (1 - part) * best[below][seed] + part * best[above][seed] for seed in seeds}
