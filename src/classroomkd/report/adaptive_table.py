"""A table that chooses its columns by the width it is given, and the same table in Markdown.

Columns are dropped by rank until every row fits on one line: nothing wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from classroomkd.report import vocabulary as words
from classroomkd.report.rows import Row

__all__ = ["AdaptiveTable", "Column", "markdown_lines"]

ASCII = str.maketrans({"−": "-", "±": "~", "×": "x", "▲": "^", "▼": "v", "–": "-", "…": "~", "†": "*"})


@dataclass(frozen=True)
class Column:
    """One column: heading, the cell of a row at so many decimals, rank (the lowest is dropped first), and the cell's
    colour.

    A column with ``foot`` is prose: where it does not fit whole, its cells become lines under the table.
    """

    title: str
    cell: Callable[[Row, int], str]
    rank: int
    left: bool = False
    style: Callable[[Row], str] | None = None
    foot: bool = False


class AdaptiveTable:
    """A rich renderable that chooses its columns by the width it is given."""

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


def markdown_lines(rows: Sequence[Row], columns: Sequence[Column], decimals: int) -> list[str]:
    """The lines of a GitHub Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escape(cell) for cell in cells) + " |"

    rule = "|" + "|".join(":---" if column.left else "---:" for column in columns) + "|"
    return [line([column.title for column in columns]), rule, *map(line, _cells(rows, columns, decimals))]


def _escape(text: str) -> str:
    for sign in "\\|`*<":
        text = text.replace(sign, "\\" + sign)
    return text
