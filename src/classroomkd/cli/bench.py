"""``classroomkd bench``: where the time of a recipe's step goes, and what a bank would save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from classroomkd._terminal import Console
from classroomkd.cli.options import JsonOutput, RecipeName, TrustCode, new_table, tell

__all__ = ["bench"]

COLUMNS = ("alone", "online", "bank")


def bench(
    recipe: RecipeName,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe, e.g. train.batch_size=128 threads=1.", metavar="KEY=VALUE"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often every step is timed.", min=2)] = 7,
    trust_code: TrustCode = False,
    as_json: JsonOutput = False,
) -> None:
    """Time each part of a recipe's step with its own networks, untrained, and say what a bank would save."""
    from classroomkd.recipe import load_recipe
    from classroomkd.run.folder import first_rank
    from classroomkd.run.session import Session

    wanted = load_recipe(recipe, overrides or [], trust_code=trust_code, writes=True)
    timed = Session(wanted, Path("runs") / wanted.name, trust_code, say=tell).bench(rounds)
    if not first_rank():
        return
    if as_json:
        print(json.dumps(timed, indent=1))
        return
    console = Console()
    threads = f"{timed['threads']} thread{'s' * (timed['threads'] != 1)}"
    print(
        f"batch of {timed['batch']}, {timed['device']}, {threads}, {timed['clock']}; medians of {timed['rounds']} "
        "interleaved rounds [and quartiles], untrained networks"
    )
    for arm in timed["arms"]:
        _print_arm(console, arm)
    if timed["bank"] is not None:
        _print_bank(console, timed["bank"])


def _print_arm(console: Console, arm: dict[str, Any]) -> None:
    """The parts of one arm's step."""
    shown = [column for column in COLUMNS if column in arm["step_ms"]]
    table = Table(title=f"A step of '{arm['label']}', ms", title_justify="left")
    table.add_column("part", no_wrap=True)
    for column in shown:
        table.add_column(column, justify="right")
    if "online" in shown:
        table.add_column("of online", justify="right")

    def row(name: str, values: dict[str, float], bold: bool = False) -> None:
        cells = [_ms(values.get(column)) for column in shown]
        if "online" in shown:
            cells.append(f"{values['online'] / arm['step_ms']['online']:.1%}" if values.get("online") else "–")
        table.add_row(name, *cells, style="bold" if bold else None)

    for name, values in arm["parts"].items():
        if any(values.values()):
            row(name, values)
        if name == "student forward":
            for mentor in sorted(arm["mentors"], key=lambda m: -m["ms"]):
                row(f"mentor {mentor['name']}", {"online": mentor["ms"]})
    row("all", arm["step_ms"], bold=True)
    spread = arm["quartiles"]
    quarters = {column: f"[{_ms(q1)}, {_ms(q3)}]" for column, (q1, q3) in spread["step_ms"].items()}
    table.add_row("", *[quarters[column] for column in shown])
    console.print(table)

    def ratio(name: str) -> str:
        q1, q3 = spread[name]
        return f"{arm[name]:.2f} [{q1:.2f}, {q3:.2f}]"

    noise = f"the student alone over itself: {ratio('again')}"
    if arm["x_floor"] is None and arm["teaches"]:
        print(
            f"no mentor is asked: this is the student's own step; what '{arm['label']}' adds, --dry-run says ({noise})"
        )
        return
    if arm["x_floor"] is None:
        print(f"no mentor is asked: the relative cost is 1 by definition ({noise})")
        return
    print(
        f"relative cost: {ratio('x_floor')} with the mentors online, {ratio('x_floor_bank')} from the bank "
        f"({noise}); '{arm['dearest']}' costs most of the mentors"
    )


def _print_bank(console: Console, bank: dict[str, Any]) -> None:
    """What each kind of bank would cost over the whole run."""
    several = bank["trainings"] > 1
    headings = ["bank", "answers a sample", "one training", "in all"]
    if several:
        headings.insert(3, f"each of {bank['trainings']}")
    title = f"Relative cost of {bank['epochs']} epochs of '{bank['arm']}', filling included"
    table = new_table(headings, ["bank"], title)
    for kind, cost in bank["kinds"].items():
        name = f"{kind} (chosen)" if kind == bank["chosen"].partition(",")[0] else kind
        cells = [f"{cost['answers']:,.0f}", f"{cost['one_training']:.2f}"]
        cells += [f"{cost['all_trainings']:.2f}"] if several else []
        table.add_row(name, *cells, _span(cost["hours"]))
    console.print(table)
    print(f"the student alone: {_span(bank['hours_alone'])}; bank={bank['chosen']}: {bank['why']}")


def _span(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _ms(value: float | None) -> str:
    return "–" if not value else f"{value:.2f}" if value < 10 else f"{value:.1f}"
