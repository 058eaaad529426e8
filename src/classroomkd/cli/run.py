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
from classroomkd.cli.options import JsonSummary, Quiet, RecipeName, TrustCode, resume_with, tell
from classroomkd.cli.plan import print_plan, size
from classroomkd.cli.progress import Watch
from classroomkd.errors import Diverged, RunStopped

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe
    from classroomkd.run.diverged import Anew
    from classroomkd.run.experiment import Outcome

__all__ = ["carry_out", "run"]

HALF_A_MINUTE = 20.0  # seconds of a dry run, less what a start and a step that is under way take


def run(
    recipe: RecipeName,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe, e.g. method.tau=8 seeds=[0,1,2].", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, and do nothing.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With --dry-run: measure everything, not half a minute's worth of it.")
    ] = False,
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

        session = Session(wanted, folder, trust_code, notify=measuring, say=tell)
        plan = session.plan(None if full else HALF_A_MINUTE)
        if first_rank():
            print_plan(plan, as_json)
        return

    def anew(changes: Mapping[str, float], other: Path) -> str:
        kept = [word for word in overrides or [] if word.partition("=")[0].strip() not in changes]
        words = [recipe, *kept, *(f"{key}={rate:g}" for key, rate in changes.items()), "--out", str(other)]
        return shlex.join(["classroomkd", "run", *words, *(["--trust-code"] if trust_code else [])])

    outcome = carry_out(wanted, folder, resume=resume, again=again, anew=anew, trust_code=trust_code, quiet=quiet)
    finish(outcome, as_json=as_json, quiet=quiet)


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
