"""Stages of an arm: what a trainee of one begins from, what one draws, and what all of them took together."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from classroomkd import models
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import UserError
from classroomkd.recipe.arms import Stage
from classroomkd.run.finished import LAST, file_of
from classroomkd.train.checkpoint import load_last

if TYPE_CHECKING:
    from classroomkd.classroom import Method
    from classroomkd.recipe import Arm, Recipe
    from classroomkd.run.networks import Networks

__all__ = ["added_up", "by_arm", "check_start", "draws_of", "file_after", "plan_of", "take_over", "trainee"]

# Of an entry what a row of its stages holds, where it is there.
_ROW = ("test_last", "test_best", "test_ema", "val_last", "val_best", "best_epoch", "steps", "seconds", "step_ms")


def draws_of(arm: Arm, seed: int) -> int:
    """The seed of a training's order, views and method: the run's, and for later stages of an arm one of their own."""
    if arm.stage is None or not arm.stage.earlier:
        return seed
    return zlib.crc32(f"stage {len(arm.stage.earlier)} of seed {seed}".encode()) % 2**31


def trainee(networks: Networks, arm: Arm, name: str, seed: int, folder: Path | None = None) -> nn.Module:
    """One trainee's network as a training begins with it.

    Args:
        networks: of the run.
        arm: the arm, or one of its stages.
        name: of the trainee.
        seed: of the run.
        folder: of the arm and the seed, where the stages before lie; None: as if nothing were trained yet.

    Raises:
        UserError: no such network, or weights that do not fit.
    """
    source = None if arm.stage is None else arm.stage.begins_from(name)
    if name != STUDENT:
        network = networks.peer(networks.context.peer(name), seed)
    else:
        network = networks.student(seed)
        networks.begin(network)
    if isinstance(source, str):
        networks.begin(network, name, source)
    elif source is not None and folder is not None:
        file = folder / file_after(source, name)
        models.load_checkpoint(network, file, what=f"{name} after stage '{source.name}'")
    return network


def take_over(method: Method, arm: Arm, folder: Path) -> None:
    """Have a stage's method go on with what that of the stage it begins from learned.

    Args:
        method: of the stage.
        arm: the stage.
        folder: of the arm and the seed.

    Raises:
        UserError: the checkpoint of the stage before is damaged or not there.
    """
    assert arm.stage is not None
    source = arm.stage.begins_from(arm.lead)
    assert isinstance(source, Stage), "the recipe's checks refuse it"
    path = folder / source.folder / "checkpoints" / "last.pt"
    state = load_last(path)
    if state is None or "method" not in state:
        again = f"remove {path.parents[1]} to train it again"
        raise UserError(f"{path} does not hold what the method of stage '{source.name}' learned; {again}")
    method.take_over(state["method"])


def file_after(stage: Stage, name: str) -> str:
    """Where a trainee's last weights of a stage lie in the folder of the arm and the seed."""
    return str(Path(stage.folder) / file_of(name, LAST))


def check_start(networks: Networks, arm: Arm) -> None:
    """Whether the file that a stage begins from is of its network.

    Raises:
        UserError: it is not, or cannot be read.
    """
    stage = arm.stage
    if stage is None or not isinstance(stage.begins_from(arm.lead), str):
        return
    try:
        trainee(networks, arm, arm.lead, 0)
    except UserError as error:
        raise UserError(f"start: {error}") from error


def added_up(arm: Arm, before: Sequence[Mapping[str, Any]], entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of an arm's last stage as the arm's: steps and seconds of all, a step's cost their mean over that of
    the student alone, and a row a stage.

    Args:
        arm: the last stage.
        before: entries of the earlier ones.
        entry: its own.
    """
    assert arm.stage is not None
    entries, stages = [*before, entry], [*arm.stage.earlier, arm.stage]
    steps, means = sum(one["steps"] for one in entries), dict[str, float]()
    if before and steps and all("step_ms" in one for one in entries):
        step = sum(one["steps"] * one["step_ms"] for one in entries) / steps
        means = {"step_ms": round(step, 4), "cost_ratio": round(step / entry["floor_ms"], 4)}
    sums = {"steps": steps, "seconds": round(sum(one["seconds"] for one in entries), 3)}
    rows = [_row(stage, one) for stage, one in zip(stages, entries, strict=True)]
    return {**entry, **means, **sums, "stages": rows}


def by_arm(recipe: Recipe, rows: Sequence[Mapping[str, Any]], key: str) -> list[list[Any]]:
    """A figure of every training, by arm, of the rows of a plan."""
    rest = iter(rows)
    return [[next(rest)[key] for _ in arm.trainings] for arm in recipe.arms()]


def plan_of(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the arms with stages take in all, in their own steps and in those of the student alone; of a plan's rows."""
    found = []
    figures = (by_arm(recipe, rows, key) for key in ("steps", "step_ms", "floor_ms", "epochs"))
    for arm, steps, step, floor, epochs in zip(recipe.arms(), *figures, strict=True):
        if not arm.stages:
            continue
        alone = sum(n * ms for n, ms in zip(steps, step, strict=True)) / floor[-1]
        stages = [
            {"name": one.stage.name, "method": one.method, "epochs": e, "steps": n, "start": one.stage.start}
            for one, e, n in zip(arm.stages, epochs, steps, strict=True)
            if one.stage is not None
        ]
        found.append({"label": arm.label, "stages": stages, "steps": sum(steps), "steps_alone": round(alone)})
    return found


def _row(stage: Stage, entry: Mapping[str, Any]) -> dict[str, Any]:
    about = {"name": stage.name, "method": entry["taught"], "trainees": list(stage.trainees), "epochs": stage.epochs}
    return {**about, **{key: entry[key] for key in _ROW if key in entry}, "folder": stage.folder}
