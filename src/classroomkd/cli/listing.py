"""``classroomkd list``: methods, models, data sources, recipes, examples and tasks; nothing here imports torch."""

from __future__ import annotations

import ast
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from classroomkd.cli.options import JsonOutput
from classroomkd.errors import UserError, did_you_mean

__all__ = ["list_"]

Row = dict[str, Any]


def _methods() -> list[Row]:
    from classroomkd.methods.table import entries

    able = _able()
    rows = []
    for name, entry in entries().items():
        row = {"name": name, **entry._asdict()}
        # The tasks that offer what the method asks for stand where they always did.
        rows.append({("tasks" if key == "asks" else key): able[name] if key == "asks" else row[key] for key in row})
    return rows


def _able() -> dict[str, list[str]]:
    """By method, the names of the tasks that offer what it asks for."""
    from classroomkd import tasks
    from classroomkd.methods.table import entries

    return {name: tasks.offering(entry.asks) for name, entry in entries().items()}


def _models() -> list[Row]:
    from classroomkd import tasks

    return [{**model, "task": row.name} for row in tasks.rows() for model in row.description.models()]


def _data() -> list[Row]:
    from classroomkd.data import describe_sources

    return list(describe_sources())


def _recipes() -> list[Row]:
    from classroomkd.recipe import recipe_files

    return [
        {"name": name, "path": str(file), "summary": _first_comment(file.read_text(encoding="utf-8", errors="replace"))}
        for name, file in recipe_files().items()
    ]


def _first_comment(text: str) -> str:
    """The first sentence of the comment that opens a recipe."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines).split(". ")[0].rstrip(".")


def _examples() -> list[Row]:
    from classroomkd.recipe import example_files

    return [{"name": name, "path": str(path), "summary": _opening(path)} for name, path in example_files().items()]


def _opening(path: Path) -> str:
    """The first sentence of a script's docstring, or of what stands below the heading of a folder's README."""
    if path.is_dir():
        paragraphs = (path / "README.md").read_text(encoding="utf-8").split("\n\n")
        return " ".join(paragraphs[1].split()).split(". ")[0].rstrip(".")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).partition(": python ")[0].split(". ")[0].rstrip(".")


def _tasks() -> list[Row]:
    from classroomkd import tasks

    able, rows = _able(), []
    for name in tasks.names():
        try:
            summary = tasks.find_row(name).summary
            _ = tasks.describe(name)
        except UserError as error:  # a plug-in that cannot be loaded
            summary = str(error)
        rows.append({"name": name, "summary": summary, "methods": [m for m, known in able.items() if name in known]})
    return rows


# what -> (rows, columns shown in the table, a line beneath)
KINDS: dict[str, tuple[Callable[[], list[Row]], tuple[str, ...], str]] = {
    "methods": (
        _methods,
        ("name", "status", "rules", "tasks", "summary"),
        "method: NAME, or {name: NAME, option: value}",
    ),
    "models": (
        _models,
        ("name", "task", "parameters", "size", "needs", "family"),
        "parameters at 100 classes, or 17 joints in crops of this size; other networks: timm:NAME, torchvision:NAME, "
        "py:package.module:factory; for pose simcc:timm:NAME, heatmap:timm:NAME, vitpose:ORG/NAME",
    ),
    "data": (_data, ("pattern", "needs", "summary"), "data: PATTERN, or {source: PATTERN, limit: 1000, ...}"),
    "recipes": (_recipes, ("name", "summary"), "classroomkd run NAME"),
    "examples": (_examples, ("name", "summary", "path"), "python PATH; a folder has a README"),
    "tasks": (_tasks, ("name", "summary", "methods"), "task: NAME, or {name: NAME, option: value}"),
}


def list_(
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help=f"One of {', '.join(KINDS)}, or schema.", show_default=False)
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Methods, models, data sources, recipes, examples and tasks at hand.

    `list schema` prints the JSON schema of recipes, for editors that check while typing.
    """
    if what == "schema":
        from classroomkd.recipe import json_schema

        typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))
        return
    if what is not None and what not in KINDS:
        choices = [*KINDS, "schema"]
        raise UserError(f"there is no list of '{what}'{did_you_mean(what, choices)}; there are {', '.join(choices)}")
    chosen = [what] if what is not None else list(KINDS)
    if as_json:
        lists = {kind: KINDS[kind][0]() for kind in chosen}
        typer.echo(json.dumps(lists[what] if what is not None else lists, indent=1, ensure_ascii=False))
        return
    for index, kind in enumerate(chosen):
        rows, columns, remark = KINDS[kind]
        if len(chosen) > 1:
            typer.echo(f"{'' if index == 0 else chr(10)}{kind}")
        held = rows()
        width = shutil.get_terminal_size((120, 24)).columns
        none = "none here: this installation is not whole; reinstall classroomkd"
        typer.echo(format_table(held, columns, width=width) if held else none)
        if remark:
            typer.echo(f"\n{remark}" if len(chosen) == 1 else remark)


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, width: int) -> str:
    """Rows as aligned text; columns that are empty throughout are left out, the last one is wrapped to ``width``."""
    shown = [[_cell(row.get(column)) for column in columns] for row in rows]
    keep = [i for i, column in enumerate(columns) if i == 0 or any(cells[i] for cells in shown)]
    table = [[cells[i] for i in keep] for cells in ([column.upper() for column in columns], *shown)]
    widths = [max(len(line[i]) for line in table) for i in range(len(keep))]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    lines = []
    for cells in table:
        start = "".join(cell.ljust(size + 2) for cell, size in zip(cells[:-1], widths[:-1], strict=True))
        last = textwrap.wrap(cells[-1], max(width - indent, 24), break_long_words=False, break_on_hyphens=False) or [""]
        lines += [(start + last[0]).rstrip(), *(" " * indent + more for more in last[1:])]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
