"""How loud every arm's mentors are: their gradient on the student over that of the labels alone, at the start and after
a few epochs.

    python benchmarks/scales.py RECIPE [KEY=VALUE ...] [--epochs 3] [--out FILE.json]

Any recipe; its mentors are trained or loaded as a run would, and kept in its cache. Every arm is taught with the first
seed for so many epochs, without a run folder. On one batch, in full precision: the norm of the gradient of all mentors'
terms (factors and schedule included) on the student's weights, over that of the plain supervised loss, and over that of
the method's own supervised part, which some weigh by less than one. Where a schedule holds the mentors back, what it
would be without is in brackets.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classroomkd._files import atomic_write_text
from classroomkd.bank import Bank
from classroomkd.classroom import Classroom
from classroomkd.data import FixedViews
from classroomkd.data.views.base import Views
from classroomkd.errors import RunStopped, UserError
from classroomkd.recipe import load_recipe
from classroomkd.run import assistants
from classroomkd.run.bank_choice import BankPlan, plan_bank
from classroomkd.run.context import RunContext
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.mentors import prepare_mentor
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.run.students import build_classroom
from classroomkd.train.gradient_scale import Scale, measure
from classroomkd.train.inputs import Batches
from classroomkd.train.loop import Training
from classroomkd.train.step_context import step_context


def prepared(networks: Networks, bank_plan: BankPlan) -> list[MentorRecord]:
    """The recipe's mentors, trained or loaded, their answers stored where the run would store them."""
    found: dict[int, MentorRecord] = {}
    recipe = networks.context.recipe
    for wave in assistants.waves(recipe.mentors):
        for i in wave:
            teachers = [found[k] for k in assistants.teachers_of(recipe.mentors, i)]
            found[i] = prepare_mentor(networks, bank_plan, i, lambda event: None, teachers)
    return [found[i] for i in sorted(found)]


def now(context: RunContext, views: Views, room: Classroom, seed: int) -> Scale | None:
    """The scale of a classroom as it is."""
    spec, store = context.recipe.train, room.mentors.store
    extra_sizes = context.extra_sizes(room)
    batches = Batches(
        context.student_part, views, spec.batch_size, seed, sizes=extra_sizes, device=context.runtime.device
    )
    if isinstance(store, Bank) and isinstance(views, FixedViews):
        store.begin(views.slot(seed, 0))
    runner = step_context(context.runtime, room, context.inputs, spec, topics=len(context.classes), last=False)
    return measure(runner, next(batches.epoch(0)))


def row(networks: Networks, bank_plan: BankPlan, arm: Any, mentors: Sequence[MentorRecord]) -> dict[str, Any]:
    """One arm before and after its epochs."""
    context, views = networks.context, bank_plan.views
    seed = context.recipe.seeds[0]
    room = build_classroom(networks, bank_plan, arm, seed, mentors)
    made: dict[str, Any] = {"arm": arm.label}
    first = now(context, views, room, seed)
    if first is None:
        return made
    fit = Training(
        context.runtime,
        room,
        context.student_part,
        None,
        views,
        context.inputs,
        context.recipe.train,
        context.classes,
        seed,
        measure=False,
        extra_sizes=context.extra_sizes(room),
    )
    try:
        fit.run()
        last = now(context, views, room, seed)
    except RunStopped as error:
        last, made["stopped"] = None, str(error)
    return made | {when: vars(scale) for when, scale in (("start", first), ("after", last)) if scale is not None}


def cell(found: dict[str, Any], key: str) -> str:
    """``2.1 → 1.4``, with what it would be without the schedule in brackets."""

    def said(when: str) -> str:
        if when not in found:
            return "–"
        value, full = found[when][key], found[when]["unscheduled"]
        more = f" ({full:.2g})" if key == "ratio" and full != found[when]["ratio"] and math.isfinite(full) else ""
        return f"{value:.2g}{more}" if math.isfinite(value) else "–"

    return f"{said('start')} → {said('after')}" if "start" in found else "–"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe file or a short name")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--epochs", type=int, default=3, help="how long every arm is taught")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = parser.parse_args(words)
    try:
        recipe = load_recipe(given.recipe, [*given.changes, f"train.epochs={given.epochs}", "workers=1"])
        networks = Networks(open_context(recipe, Path("runs") / recipe.name))
        bank_plan = plan_bank(networks)
        mentors, rows = prepared(networks, bank_plan), []
        print(f"| arm | over the labels alone, start → {given.epochs} epochs | over its own supervised part |")
        print("|:---|---:|---:|")
        for arm in recipe.arms():
            rows.append(row(networks, bank_plan, arm, mentors))
            print(f"| {arm.label} | {cell(rows[-1], 'ratio')} | {cell(rows[-1], 'own')} |", flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    if given.out is not None:
        atomic_write_text(given.out, json.dumps({"epochs": given.epochs, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
