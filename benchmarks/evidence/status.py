"""What is there, what is missing, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.evidence.cells import Cell, cell_of
from benchmarks.evidence.plan import wanted
from benchmarks.evidence.prepared import prepare
from benchmarks.evidence.queue import Queue
from benchmarks.evidence.study import Panel, Study, load_study
from classroomkd.errors import UserError
from classroomkd.run.session import Session

__all__ = ["core_hours", "status"]

BUDGET = 15.0  # seconds of a dry run


def status(names: Sequence[str], queue: Queue) -> None:
    """Print a line for every study."""
    for name in names:
        study = load_study(name)
        decided = [(what, queue.store.missing(what.cell, what.seeds)) for what in wanted(name, study, queue.store)]
        total = sum(_students(study, panel) for panel in study.panels)
        there = sum(len(what.seeds) - len(missing) for what, missing in decided)
        failed = sum(len(set(queue.store.failures(what.cell)) & set(what.seeds)) for what, _ in decided)
        known = f" ({failed} of them could not be finished)" if failed else ""
        hours = _left(study, queue, 1 - there / total) if there < total else ""
        print(f"{name}: {there} of {total} students{known}{hours}", flush=True)


def _left(study: Study, queue: Queue, share: float) -> str:
    """What a share of a study takes; where nothing has a label, mentors must be there before that can be measured."""
    try:
        return f"; about {core_hours(study, queue) * share:.1f} core-hours left"
    except UserError as error:
        return f"; what is left cannot be measured yet: {str(error).splitlines()[0]}"


def core_hours(study: Study, queue: Queue) -> float:
    """What the whole study takes, its mentors aside, from a dry run of every panel."""
    total = 0.0
    for panel in study.panels:
        each = _seconds(study, panel, queue)
        total += sum(each[arm] * students for arm, students in _counts(study, panel).items())
        total += each["none"] * sum(panel.curve) * len(study.seeds)
    return total / 3600


def _counts(study: Study, panel: Panel) -> Mapping[str, int]:
    """Trainings of each arm, of the length that rows have."""
    counts = Counter({arm.name: len(study.seeds) for arm in study.within(panel)})
    if study.tune is not None and not panel.tuned:
        tried = len(study.tune.seeds)
        counts[study.arms[0].name] += tried * len(study.tune.rates)
        for arm in study.within(panel):
            counts[arm.name] += tried * (len(arm.candidates()) if len(arm.candidates()) > 1 else 0)
    return counts


def _students(study: Study, panel: Panel) -> int:
    return sum(_counts(study, panel).values()) + len(panel.curve) * len(study.seeds)


def _seconds(study: Study, panel: Panel, queue: Queue) -> dict[str, float]:
    """Of one training of each arm, on one core, with stored answers; of what was not measured, the median; where others
    learn beside the student, as many times the student alone."""
    cells = {arm.name: cell_of(study, panel, arm.set(arm.candidates()[0])) for arm in study.within(panel)}
    taught = {name: cell for name, cell in cells.items() if cell.mentors and not _together(cell)}
    taught = taught or {name: cell for name, cell in cells.items() if not _together(cell)}  # a study without mentors
    shared = Counter(cell.base for cell in taught.values()).most_common(1)[0][0]
    some = {name: cell for name, cell in taught.items() if cell.base == shared}
    first = next(iter(some.values()))
    place = prepare(first.prepared, Path(queue.folder(first)), queue.out / "prepared")
    grid = [cell.named for cell in some.values()]
    recipe = first.recipe(queue.folder(first), queue.trained, grid, place, **queue.own([0]))
    plan = Session(recipe, queue.out / "dry").plan(BUDGET)
    waited = plan["arms"][0]["data_ms"] or 0.0  # of the arm that is always measured; for the same data
    found = {name: _one(arm, waited, plan["steps"]) for name, arm in zip(some, plan["arms"], strict=True)}
    usual = median(found.values())
    alone = plan["arms"][0]["floor_ms"] * plan["steps"] / 1000
    return {
        name: found.get(name, (_together(cell) or 1) * alone if _together(cell) or not cell.mentors else usual)
        for name, cell in cells.items()
    } | {"none": alone}


def _together(cell: Cell) -> float:
    """How many trainings of one network an arm is that has peers or stages; 0 for all others."""
    peers = len(cell.changes.get("peers", ()))
    return (1 + peers) * cell.length if peers or cell.length != 1 else 0.0


def _one(arm: Mapping[str, float | None], waited: float, steps: int) -> float:
    step = (arm["floor_ms"] or 0.0) * (arm["x_floor_bank"] or arm["x_floor"] or 1.0) + waited
    return step * steps / 1000
