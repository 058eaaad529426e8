"""``classroomkd probe``: judge students by their features and by those that taught them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from classroomkd._terminal import Console
from classroomkd.cli.options import Device, PrintJson, TrustCode, Which, new_table, tell

__all__ = ["probe"]

PAIRS = "With each mentor: the same class / shared neighbours"


def probe(
    student: Annotated[
        Path, typer.Argument(help="A run folder (all of its students), a seed's folder, or a student.safetensors.")
    ],
    data: Annotated[
        str | None, typer.Option(help="A data source, e.g. imagefolder:DIR; the run's own by default.")
    ] = None,
    neighbours: Annotated[int, typer.Option(help="k of the nearest neighbours.", min=1)] = 20,
    unreadable: Annotated[str, typer.Option(help="Images that cannot be decoded: refuse or skip.")] = "refuse",
    which: Which = "last",
    device: Device = "auto",
    trust_code: TrustCode = False,
    as_json: PrintJson = False,
) -> None:
    """Judge features: nearest neighbours, a linear probe, and agreement with each mentor and with their vote.

    Neighbours and probe are fitted on the labelled training part of the data and scored on its test part, whatever its
    classes are; without labels there is the agreement alone. Of a run folder the figures are kept in its summary.json,
    for compare and report.
    """
    from classroomkd.tasks.probe import probe_files

    result = probe_files(
        student, data, neighbours, which=which, unreadable=unreadable, device=device, trust_code=trust_code,
        say=partial(tell, "note"),
    )  # fmt: skip
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    """A row a network and a column a figure."""
    from classroomkd.report.summary import SAME, SHARED

    fitted = f"fitted on {result['fitted']:,} labelled images" if result["fitted"] else "no image has a label"
    print(f"{result['data']}: {fitted}, judged on {result['scored']:,}; k = {result['neighbours']}")
    students = [
        (row["method"] if row["seed"] is None else f"{row['method']} · seed {row['seed']}", row["figures"])
        for row in result["students"]
    ]
    names = [row["name"] for row in result["mentors"]]
    everybody = students + [(f"mentor {row['name']}", row["figures"]) for row in result["mentors"]]
    known = dict.fromkeys(name for _, figures in everybody for name in figures)
    of_pairs = {f"{what} {name}" for what in (SAME, SHARED) for name in names}
    _print(everybody, {name: (name,) for name in known if name not in of_pairs})
    if names:
        _print(students, {name: (f"{SAME} {name}", f"{SHARED} {name}") for name in names}, PAIRS)


def _print(rows: Sequence[tuple[str, dict[str, float]]], columns: Mapping[str, Sequence[str]], title: str = "") -> None:
    """A row a network; in each column the figures of these names."""
    table = new_table(["network", *columns], ["network"], title or None, fold=True)
    for label, figures in rows:
        cells = [[f"{figures[name]:.1%}" for name in names if name in figures] for names in columns.values()]
        table.add_row(label, *(" / ".join(cell) or "–" for cell in cells))
    Console().print(table)
