"""``classroomkd run``: prepare the mentors, teach the students, write the run folder."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classroomkd._terminal import Console
from classroomkd.cli.options import JsonSummary, Quiet, RecipeName, TrustCode, new_table, resume_with, tell
from classroomkd.cli.progress import Watch
from classroomkd.errors import Diverged, RunStopped

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe
    from classroomkd.run.diverged import Anew
    from classroomkd.run.experiment import Outcome

__all__ = ["carry_out", "run", "size"]


def run(
    recipe: RecipeName,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe, e.g. method.tau=8 seeds=[0,1,2].", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, and do nothing.")] = False,
    trust_code: TrustCode = False,
    as_json: JsonSummary = False,
    quiet: Quiet = False,
) -> None:
    """Teach a student as a recipe says.

    Exit codes: 0 done; 1 a student could not be finished; 2 a mistake in what was asked; 75 stopped by SIGTERM or
    SIGHUP, 130 by Ctrl-C: --resume goes on from there.
    """
    from classroomkd.recipe import load_recipe

    wanted = load_recipe(recipe, overrides or [], trust_code=trust_code, writes=True, out=out)
    folder = out or Path("runs") / wanted.name
    typed = ["classroomkd", "run", recipe, *(overrides or []), "--out", str(folder), "--resume"]
    again = shlex.join([*typed, "--trust-code"] if trust_code else typed)
    if dry_run:
        from classroomkd.run.folder import first_rank
        from classroomkd.run.session import Session

        def measuring(event: dict[str, Any]) -> None:
            if not quiet and first_rank():
                print(event["text"], file=sys.stderr, flush=True)

        plan = Session(wanted, folder, trust_code, notify=measuring, say=tell).plan()
        if first_rank():
            _print_plan(plan, as_json)
        return

    def anew(changes: Mapping[str, float], other: Path) -> str:
        kept = [word for word in overrides or [] if word.partition("=")[0].strip() not in changes]
        words = [recipe, *kept, *(f"{key}={rate:g}" for key, rate in changes.items()), "--out", str(other)]
        return shlex.join(["classroomkd", "run", *words, *(["--trust-code"] if trust_code else [])])

    outcome = carry_out(wanted, folder, resume=resume, again=again, anew=anew, trust_code=trust_code, quiet=quiet)
    finish(outcome, as_json=as_json, quiet=quiet)


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    console, data = Console(), plan["data"]
    console.print(
        f"data      {data['name']}: {data['train']:,} training {data['samples']} ({data['student_train']:,} for the "
        f"student), {data['val']:,} for validation, {data['test']:,} for testing; {data['classes']} {data['topics']}, "
        f"inputs of {data['shape']}",
        markup=False, highlight=False,
    )  # fmt: skip
    table = new_table(("", "model", "parameters", "multiply-adds"), ("model",), "Networks")
    for name, network in [("student", plan["student"]), *plan["mentors"].items()]:
        table.add_row(name, network["model"], f"{network['parameters']:,}", f"{network['multiply_adds']:,}")
    console.print(table)
    costs = ("mentor forwards", "ms online", "relative cost", "with the bank", "mentors' gradient")
    arms = new_table(("arm", *costs), ("arm",), "What a step costs (measured here, untrained networks)")
    for arm in plan["arms"]:
        bank = "–" if arm["x_floor_bank"] is None else f"{arm['x_floor_bank']:.2f}"
        ratio = "–" if arm["gradient_ratio"] is None else f"{arm['gradient_ratio']:.1f}"
        online = (f"{arm['step_ms']:.1f}", f"{arm['x_floor']:.2f}")
        arms.add_row(arm["label"], str(arm["mentor_forwards"]), *online, bank, ratio)
    console.print(arms)
    print("mentors' gradient: over that of the labels alone, at the start; – where a mentor is not trained yet")
    for arm in plan["arms"]:
        if arm["loud"]:
            print(f"note: arm '{arm['label']}': {arm['loud']}")
    students = f"{plan['students']} student{'s' * (plan['students'] != 1)}"
    print(f"{students} of {plan['steps']:,} steps each, seeds {plan['seeds']}, into {plan['out']}")
    bank = plan["bank"]
    if bank["kind"] == "off":
        print(f"bank      off: {bank['why']}")
        return
    print(
        f"bank      {bank['kind']}: {bank['why']}. The mentors answer {bank['mentor_answers_once']:,} times instead of "
        f"{bank['mentor_answers_online']:,}; up to {size(bank['bytes'])}"
    )
    if total := bank.get("total"):
        shared = f", {total['all trainings']:.2f} when {bank['trainings']} share it" if bank["trainings"] > 1 else ""
        print(
            f"          relative cost of a training with its share of the filling: {total['one training']:.2f}{shared}"
        )


def _bank_line(bank: dict[str, Any]) -> str:
    """What a run says of its bank before it starts: counts, and costs in multiply-adds."""
    counted = "in multiply-adds, not measured (--dry-run measures)"
    if bank["kind"] == "off":
        answers = f"The mentors answer up to {bank['mentor_answers_online']:,} times"
        return f"bank off: {bank['why']}. {answers}; relative cost {bank['online']:.2f} where all are asked, {counted}"
    views = "" if bank["kind"].startswith("views=") else f", {bank['views']:,} views"
    share = f", {bank['total']['all trainings']:.2f} when {bank['trainings']} share it"
    return (
        f"bank {bank['kind']}{views}: {bank['why']}. The mentors answer about {bank['mentor_answers_once']:,} times "
        f"instead of {bank['mentor_answers_online']:,}, less what the cache has; up to {size(bank['bytes'])}"
        f"{' and stored features' if bank['features'] else ''}. Relative cost of a training with its share of the "
        f"filling: {bank['total']['one training']:.2f}{share if bank['trainings'] > 1 else ''}, {counted}"
    )


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def carry_out(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    again: str | None = None,
    anew: Anew | None = None,
    trust_code: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Run a recipe into a folder with progress on stderr, and write the report.

    ``again`` is what the user types to go on after an interruption, ``anew`` to begin again after a divergence.
    """
    from classroomkd.run.folder import first_rank
    from classroomkd.run.session import Session

    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    with Watch(quiet=quiet or not first_rank()) as watch:

        def notify(event: dict[str, Any]) -> None:
            if event["event"] == "opened":
                resume_with(again)  # from here on there is something to go on with
            elif event["event"] == "forecast":
                if not watch.quiet:
                    watch.say(_bank_line(event["bank"]))
            else:
                watch(event)

        session = Session(recipe, folder, trust_code, notify=notify, say=watch.tell)
        return session.run(resume=resume, command=command, again=again, anew=anew, report=_write_report)


def _write_report(folder: Path) -> None:
    import warnings

    from classroomkd.report import write_report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_report(folder)


def finish(outcome: Outcome, *, as_json: bool, quiet: bool) -> None:
    """Print the tables and where things are; raise when a student could not be finished."""
    from classroomkd.run.folder import first_rank

    quiet = quiet or not first_rank()
    if as_json and first_rank():
        print(json.dumps(outcome.summary, indent=1))
    elif not quiet:
        print_results([outcome.folder])
    if outcome.failures and first_rank():  # the others have nothing to add, and must not end it before its report
        told = "; ".join(outcome.failures) + f". What was finished is in {outcome.folder}"
        raise Diverged(f"{told}\n{outcome.remedy}") if outcome.remedy else RunStopped(told)


def print_results(folders: list[Path]) -> None:
    """The mentors' and the result table of run folders."""
    from classroomkd import report

    console = Console()
    summaries = report.collect(folders)
    for summary in summaries:
        if summary.mentors:
            console.print(report.rich_mentors(report.mentor_rows([summary]), title="Mentors"))
    rows = report.result_rows(summaries)
    console.print(report.rich_results(rows, title="Students"))
    if (more := report.rich_figures(rows, title="Further figures")) is not None:
        console.print(more)
    for folder in folders:
        console.print(f"report: {folder / 'report.html'}", markup=False, highlight=False)
