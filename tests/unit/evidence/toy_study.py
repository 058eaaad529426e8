"""A small study on drawn figures, and results that are written down in place of trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.evidence.cells import Cell
from benchmarks.evidence.plan import Wanted, wanted
from benchmarks.evidence.results import Store
from benchmarks.evidence.study import Arm, Panel, Study, Tune

ARMS = (
    Arm("none", knob="train.weight_decay"),
    Arm("average", ({"name": "average"},)),
    Arm("kd", ({"name": "kd"},)),
    Arm("plain kd", ({"name": "kd"},), knob=""),
)
TOY = Study(
    title="Toy",
    answers="Which?",
    data={"source": "puppets", "options": {"train": 200, "test": 100}},
    student="convnet4",
    mentors=("puppets-a", "puppets-b"),
    arms=ARMS,
    train={"epochs": 4},
    panels=(Panel("small", "Small"),),
    tune=Tune((100, 101), (0.05, 0.1)),
    seeds=(0, 1, 2),
    recipe={"bank": "views=2"},
)
TWO_PANELS = replace(TOY, panels=(*TOY.panels, Panel("large", "Large", {"student.model": "convnet8"}, tuned="small")))

Scores = Callable[[Cell, int], float | None]


def store(folder: Path) -> Store:
    """An empty one."""
    return Store(folder / "results")


def student(test: float, val: float | None = None, **more: Any) -> dict[str, Any]:
    """What is kept of a finished student."""
    val = test if val is None else val
    curve = {"val_best": val, "best_epoch": 1, "val_curve": [[1, val]]}
    figures = {"test_last": test, "test_best": test, "val_last": val, **curve}
    return {**figures, "steps": 24, "seconds": 10.0, "cost_ratio": 1.2, "mentors_vote": 0.625, **more}


def put(results: Store, cell: Cell, **scores: float) -> None:
    """Students of a cell: ``s0=0.5`` is seed 0."""
    for seed, score in scores.items():
        results.add("toy", cell, int(seed[1:]), student(score), {})


def finish(
    results: Store, study: Study = TOY, test: Scores | None = None, val: Scores | None = None, name: str = "toy"
) -> list[Wanted]:
    """Write down what a study wants until nothing is missing, in the order of the queue; a score of None has failed.

    Returns what was asked for, each once.
    """
    asked: list[Wanted] = []
    while lacking := next((w for w in wanted(name, study, results) if results.missing(w.cell, w.seeds)), None):
        asked.append(replace(lacking, seeds=results.missing(lacking.cell, lacking.seeds)))
        for seed in asked[-1].seeds:
            score = 0.5 if test is None else test(lacking.cell, seed)
            chosen_on = score if val is None else val(lacking.cell, seed)
            if score is None or chosen_on is None:
                results.fail(name, lacking.cell, seed, "the loss is not finite")
            else:
                results.add(name, lacking.cell, seed, student(score, chosen_on), {})
    return asked
