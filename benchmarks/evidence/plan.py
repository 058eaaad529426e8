"""What a study wants trained, in order, from what is there; choices depend on results, so more follows as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.evidence.cells import NOWHERE, Cell, cell_of
from benchmarks.evidence.results import Store
from benchmarks.evidence.study import DEFAULTS, Arm, Panel, Study, load_study
from classroomkd.errors import UserError

__all__ = ["Row", "Wanted", "chosen", "curve", "rows", "wanted"]


@dataclass(frozen=True)
class Wanted:
    """A cell with the seeds it should have, and what for: ``rate``, ``tune``, ``row`` or ``curve`` of an arm."""

    cell: Cell
    seeds: tuple[int, ...]
    what: str
    arm: str


@dataclass(frozen=True)
class Row:
    """An arm of a panel as it is trained: its cell, and what was chosen for it."""

    arm: Arm
    cell: Cell
    setting: Mapping[str, Any]


def wanted(name: str, study: Study, store: Store) -> Iterator[Wanted]:
    """Everything that can be decided now, panel by panel: the rate, the candidates, the rows, the curve."""
    first = study.arms[0].name
    for panel in study.panels:
        if study.tune is not None and not panel.tuned:
            rates = [_alone(study, panel, lr) for lr in study.tune.rates]
            yield from (Wanted(cell, study.tune.seeds, "rate", first) for cell in rates)
            rate = _best(store, rates, study.tune.seeds)
            if rate is None:
                continue
            for arm in study.within(panel):
                if len(arm.candidates()) > 1:
                    cells = _candidates(study, panel, arm, study.tune.rates[rate])
                    yield from (Wanted(cell, study.tune.seeds, "tune", arm.name) for cell in cells)
        for row in rows(name, study, panel, store):
            yield Wanted(row.cell, study.seeds, "row", row.arm.name)
        for _, cell in curve(name, study, panel, store):
            yield Wanted(cell, study.seeds, "curve", first)


def rows(name: str, study: Study, panel: Panel, store: Store) -> list[Row]:
    """The rows of a panel whose settings are decided."""
    found = []
    for arm in study.within(panel):
        setting = chosen(name, panel, arm, store)
        if setting is not None:
            found.append(Row(arm, _set(study, panel, arm, setting), setting))
    return found


def curve(name: str, study: Study, panel: Panel, store: Store) -> list[tuple[float, Cell]]:
    """The student alone as it is set, for other shares of the epochs."""
    alone = study.arms[0]
    setting = chosen(name, panel, alone, store)
    if setting is None:
        return []
    whole = _set(study, panel, alone, setting)
    epochs = whole.recipe(NOWHERE).train.epochs
    spans = [max(1, round(share * epochs)) for share in panel.curve]
    cells = [_set(study, panel, alone, {**setting, "train.epochs": span}) for span in spans]
    return list(zip(panel.curve, cells, strict=True))


def chosen(name: str, panel: Panel, arm: Arm, store: Store) -> dict[str, Any] | None:
    """The candidate that is best on the validation part, with the rate; None where that is not known yet.

    Raises:
        UserError: the panel takes its choices from one that does not exist, or that does not have the arm.
    """
    if panel.tuned == DEFAULTS:
        return {}
    if panel.tuned:
        other, _, place = panel.tuned.rpartition("/")
        source = other or name
        arms = {each.name: each for each in load_study(source).arms}
        theirs = arm.tuned_as or arm.name
        if theirs not in arms and arm.knob:
            raise UserError(f"study '{name}', panel '{panel.name}': '{panel.tuned}' has no arm '{theirs}'")
        return chosen(source, load_study(source).panel(place), arms.get(theirs, arm), store)
    study = load_study(name)
    if study.tune is None:
        return {}
    seeds = study.tune.seeds
    rate = _best(store, [_alone(study, panel, lr) for lr in study.tune.rates], seeds)
    if rate is None:
        return None
    lr = study.tune.rates[rate]
    candidates = arm.candidates()
    best = 0 if len(candidates) == 1 else _best(store, _candidates(study, panel, arm, lr), seeds)
    return None if best is None else {"train.lr": lr, **candidates[best]}


def _alone(study: Study, panel: Panel, lr: float) -> Cell:
    return cell_of(study, panel, Arm("none"), **{"train.lr": lr})


def _candidates(study: Study, panel: Panel, arm: Arm, lr: float) -> list[Cell]:
    return [_set(study, panel, arm, {"train.lr": lr, **candidate}) for candidate in arm.candidates()]


def _set(study: Study, panel: Panel, arm: Arm, setting: Mapping[str, Any]) -> Cell:
    return cell_of(study, panel, arm.set(setting))


def _best(store: Store, cells: list[Cell], seeds: tuple[int, ...]) -> int | None:
    """The place of the best mean validation score over the seeds; None while one is missing. What diverged loses."""
    if any(store.missing(cell, seeds) for cell in cells):
        return None
    means = []
    for cell in cells:
        scores = [entry["val_last"] for seed, entry in store.students(cell).items() if seed in seeds]
        means.append(sum(scores) / len(scores) if len(scores) == len(seeds) else -1.0)
    return max(range(len(cells)), key=lambda i: means[i])
