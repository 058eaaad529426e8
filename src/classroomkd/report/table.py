"""The result table and the mentors table in a terminal and in Markdown.

A terminal is 80 columns more often than not, so columns leave by rank until the rest fits on one line each: nothing
wraps. What a dropped column would have warned of (a rule that is a reconstruction) stays as a footnote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from . import words
from .rows import Row, mentor_rows, result_rows

__all__ = ["markdown", "mentor_rows", "mentors_markdown", "notes", "result_rows", "rich_mentors", "rich_results"]

DAGGER = "†"  # marks an arm whose rule is a reconstruction
STYLES = {"gain": "green", "loss": "red"}
ASCII = str.maketrans({"−": "-", "±": "~", "×": "x", "▲": "^", "▼": "v", "–": "-", "…": "~", "†": "*"})


@dataclass(frozen=True)
class Column:
    """One column: heading, the cell of a row at so many decimals, rank (low leaves first), and the cell's colour.

    A column with ``foot`` is prose: where it does not fit whole, its cells become lines under the table.
    """

    title: str
    cell: Callable[[Row, int], str]
    rank: int
    left: bool = False
    style: Callable[[Row], str] | None = None
    foot: bool = False


def _result_columns(rows: Sequence[Row]) -> list[Column]:
    columns = [Column("arm", lambda row, _: _label(row), 100, left=True)]
    if len({row["run"] for row in rows}) > 1:
        columns.insert(0, Column("run", lambda row, _: row["run"], 95, left=True))
    columns.append(Column("n", lambda row, _: str(row["test_last"]["n"]), 70))
    columns.append(Column("test %", lambda row, d: _spread(row, "test_last", d), 99))
    columns.append(Column("at best val %", lambda row, d: _spread(row, "test_best", d), 40))
    if any(row["test_ema"]["n"] for row in rows):
        columns.append(Column("EMA %", lambda row, d: _spread(row, "test_ema", d), 35))
    for rank, name in enumerate(list(rows[0]["vs"]) if rows else []):
        if any(row["vs"][name] for row in rows):
            columns.append(_difference_column(name, 90 - rank))
    columns.append(Column("step", lambda row, _: words.ratio(row["cost_ratio"]), 80))
    columns.append(Column("params", lambda row, _: words.count(row["parameters"]), 60))
    if any(row["status"] for row in rows):
        columns.append(Column("status", lambda row, _: row["status"] or words.DASH, 20, left=True))
    return columns


def _difference_column(name: str, rank: int) -> Column:
    def style(row: Row) -> str:
        return STYLES.get(row["vs"][name]["verdict"], "") if row["vs"][name] else ""

    return Column(f"vs {words.alone(name)}", lambda row, d: words.points(row["vs"][name], d), rank, style=style)


MENTOR_COLUMNS = [
    Column("mentor", lambda row, _: row["name"], 100, left=True),
    Column("model", lambda row, _: row["model"] or words.DASH, 60, left=True),
    Column("test %", lambda row, d: words.percent(row["accuracy"], d), 99),
    Column("val %", lambda row, d: words.percent(row["val_accuracy"], d), 40),
    Column("params", lambda row, _: words.count(row["parameters"]), 80),
    Column("mult-adds", lambda row, _: words.count(row["multiply_adds"]), 50),
    Column("labels seen", lambda row, _: _thousands(row["samples"]), 90),
    Column("note", lambda row, _: row["note"] or words.DASH, 70, left=True, foot=True),
]


class _Fitted:
    """A rich renderable that chooses its columns when it learns how wide it may be."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[Column], decimals: int, title: str, foot: Sequence[str]):
        self.rows, self.columns, self.decimals = list(rows), list(columns), decimals
        self.title, self.foot = title, list(foot)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only
        columns, cells = self._fit(options.max_width)
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            title=Text(self.title),
            title_justify="left",
            title_style="bold",
        )
        for column in columns:
            table.add_column(
                Text(column.title), justify="left" if column.left else "right", no_wrap=True, header_style="dim"
            )
        for row, texts in zip(self.rows, cells, strict=True):
            styles = [column.style(row) if column.style else "" for column in columns]
            table.add_row(*(Text(_plain(t, plain), style=s) for t, s in zip(texts, styles, strict=True)))
        yield table
        hidden = [column for column in self.columns if column.foot and column not in columns]
        below = [
            f"{row['name']}: {text}"
            for column in hidden
            for row in self.rows
            if (text := column.cell(row, 1)) != words.DASH
        ]
        for line in below + self.foot:
            yield Text(_plain(line, plain), style="dim")

    def _fit(self, width: int) -> tuple[list[Column], list[list[str]]]:
        columns = list(self.columns)
        for decimals in sorted({self.decimals, 1}, reverse=True):
            cells = _cells(self.rows, columns, decimals)
            if _width(columns, cells) <= width:
                return columns, cells
        while True:
            over = _width(columns, cells) - width
            if over <= 0:
                return columns, cells
            prose = [column for column in columns if column.foot]
            if not prose and _squeeze(columns, cells, over):
                continue
            if len(columns) <= 2:
                return columns, cells
            columns.remove(prose[0] if prose else min(columns, key=lambda column: column.rank))
            cells = _cells(self.rows, columns, 1)


def rich_results(rows: Sequence[Row], *, title: str = "") -> _Fitted:
    """The result table for ``rich.print``; fits the width it is given. ``rows`` come from :func:`result_rows`."""
    decimals = words.decimals_for(min((row["test"] or 0 for row in rows), default=0))
    return _Fitted(rows, _result_columns(rows), decimals, title, notes(rows) if rows else ["No results yet."])


def rich_mentors(rows: Sequence[Row], *, title: str = "") -> _Fitted:
    """The mentors table for ``rich.print``; ``rows`` come from :func:`mentor_rows`."""
    return _Fitted(rows, MENTOR_COLUMNS, 1, title, [] if rows else ["No mentors."])


def markdown(rows: Sequence[Row]) -> str:
    """The result table as GitHub Markdown with every column, and the notes under it."""
    decimals = words.decimals_for(min((row["test"] or 0 for row in rows), default=0))
    lines = _markdown(rows, _result_columns(rows), decimals) if rows else []
    return "\n".join([*lines, "", *(f"{line}  " for line in notes(rows)), ""]) if rows else "No results yet.\n"


def mentors_markdown(rows: Sequence[Row]) -> str:
    """The mentors table as GitHub Markdown."""
    return "\n".join([*_markdown(rows, MENTOR_COLUMNS, 1), ""]) if rows else "No mentors.\n"


def notes(rows: Sequence[Row], mark: str = DAGGER) -> list[str]:
    """What a reader must know to read the result table: units, intervals, what is missing or reconstructed.

    ``mark`` is what stands beside the arms that are reconstructions.
    """
    found = _students(rows)
    if any(row["test_last"]["n"] > 1 for row in rows):
        found.append("± is the standard deviation over n seeds.")
    differences = [d for row in rows for d in row["vs"].values() if d]
    if any(d["low"] is not None for d in differences):
        found.append("vs: points, paired by seed, with a 95 % interval; ▲ ▼ where it excludes 0.")
    if any(d["verdict"] == "one seed" for d in differences):
        found.append("A difference of one seed has no interval and shows nothing; run more: seeds=[0,1,2,3,4].")
    if any(d["low"] is not None and d["low"] == d["high"] for d in differences):
        found.append("An interval without width (all seeds differ equally) is not marked.")
    if any(row["cost_ratio"] is not None for row in rows):
        found.append("step: time of a training step over the student's alone.")
    found += _gaps(rows)
    borrowed = sorted(
        {(d["arm"], d["run"]) for row in rows for d in row["vs"].values() if d and d["run"] != row["run"]}
    )
    found += [f"Runs without their own are compared with '{arm}' of {run}." for arm, run in borrowed]
    if any(_reconstructed(row) for row in rows):
        found.append(f"{mark} rebuilt from a description, not from the authors' code.")
    return found


def _students(rows: Sequence[Row]) -> list[str]:
    """Who was taught and tested on what: one line where all rows agree, as they do within a run."""
    found = []
    for student, parameters, data, test in dict.fromkeys(
        (row["student"], row["parameters"], row["data"], row["test"]) for row in rows
    ):
        parts = [f"{student}, {words.count(parameters)} parameters" if student and parameters else student]
        parts.append(f"{test:,} test samples" + (f" of {data}" if data else "") if test else data)
        if any(parts):
            found.append(f"Student: {'; '.join(part for part in parts if part)}.")
    return found if len(found) == 1 else []


def _gaps(rows: Sequence[Row]) -> list[str]:
    unfinished = [f"{row['arm']} lacks seed {_list(row['missing'])}" for row in rows if row["missing"]]
    return [f"Unfinished: {'; '.join(unfinished)}. Differences use shared seeds only."] if unfinished else []


def _label(row: Row) -> str:
    return f"{row['arm']} {DAGGER}" if _reconstructed(row) else str(row["arm"])


def _reconstructed(row: Row) -> bool:
    return "reconstructed" in str(row["status"])


def _spread(row: Row, key: str, decimals: int) -> str:
    return words.plus_minus(row[key]["mean"], row[key]["sd"], decimals)


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _thousands(number: int | None) -> str:
    return words.DASH if number is None else f"{number:,}"


def _cells(rows: Sequence[Row], columns: Sequence[Column], decimals: int) -> list[list[str]]:
    """Every cell on one line: names come from folders and may hold anything."""
    return [[" ".join(column.cell(row, decimals).split()) for column in columns] for row in rows]


def _width(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> int:
    return sum(_widths(columns, cells)) + 2 * (len(columns) - 1)


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([cell_len(column.title), *(cell_len(row[index]) for row in cells)]) for index, column in enumerate(columns)
    ]


def _squeeze(columns: Sequence[Column], cells: list[list[str]], over: int, least: int = 16) -> bool:
    """Shorten the widest text column by what is too much; False when all are short already."""
    widths = _widths(columns, cells)
    text = [index for index, column in enumerate(columns) if column.left and widths[index] > least]
    if not text:
        return False
    widest = max(text, key=lambda index: widths[index])
    limit = max(least, widths[widest] - over)
    for row in cells:
        row[widest] = words.shorten(row[widest], limit)
    return True


def _plain(text: str, ascii_only: bool) -> str:
    return text.translate(ASCII).encode("ascii", "replace").decode() if ascii_only else text


def _markdown(rows: Sequence[Row], columns: Sequence[Column], decimals: int) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escape(cell) for cell in cells) + " |"

    rule = "|" + "|".join(":---" if column.left else "---:" for column in columns) + "|"
    return [line([column.title for column in columns]), rule, *map(line, _cells(rows, columns, decimals))]


def _escape(text: str) -> str:
    for sign in "\\|`*<":
        text = text.replace(sign, "\\" + sign)
    return text
