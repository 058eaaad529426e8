"""``classroomkd demo``: the whole job on the embedded data, in a few minutes on two cores."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from classroomkd import tasks
from classroomkd.cli.options import JsonSummary, Quiet
from classroomkd.errors import UserError

__all__ = ["demo"]

OLD_NAMES = {"classify": "classification"}  # what --task was called


def demo(
    data: Annotated[
        str | None,
        typer.Option(
            help="puppets (drawn figures; the default) or digits (scikit-learn's handwritten ones).", show_default=False
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="classification, or pose (17 joints of drawn figures).")] = tasks.DEFAULT,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to its recipe.", metavar="KEY=VALUE")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/demo or the next free name.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo; needs --out.")] = False,
    as_json: JsonSummary = False,
    quiet: Quiet = False,
) -> None:
    """Teach a small student from several mentors on the embedded data; no network, no download."""
    from classroomkd.cli.run import carry_out, finish
    from classroomkd.recipe import load_recipe

    if task in OLD_NAMES and not quiet:
        print(f"note: --task {task} is called {OLD_NAMES[task]} now", file=sys.stderr)
    task = OLD_NAMES.get(task, task)
    able = {row.name: row.description for row in tasks.rows() if row.description.demos}
    if task not in able:
        raise UserError(f"--task {task}: choose one of {', '.join(able)}")
    recipes = able[task].demos
    data = data or next(iter(recipes))
    if data not in recipes:
        raise UserError(f"--data {data}: choose one of {', '.join(recipes)}")
    if resume and out is None:
        raise UserError("--resume: say which demo to go on with, e.g. --out runs/demo")
    recipe = load_recipe(recipes[data], overrides or [])
    usual = task == tasks.DEFAULT
    folder = out or _free(Path("runs") / ("demo" if usual else f"demo-{task}"))
    chosen = ["--data", data] if usual else ["--task", task]
    again = shlex.join(["classroomkd", "demo", *chosen, *(overrides or []), "--out", str(folder), "--resume"])
    outcome = carry_out(recipe, folder, resume=resume, again=again, quiet=quiet)
    finish(outcome, as_json=as_json, quiet=quiet)
    if not (as_json or quiet):
        for note in outcome.summary["data"]["notes"]:
            print(f"note: {note}")
        print(f"next:   {able[task].next_step}")


def _free(wanted: Path) -> Path:
    """``runs/demo``, or the first of ``runs/demo-2``, ``-3``, … that does not exist."""
    if not wanted.exists():
        return wanted
    return next(p for i in range(2, 10_000) if not (p := wanted.with_name(f"{wanted.name}-{i}")).exists())
