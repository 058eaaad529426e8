"""The result table and the mentors table in a terminal and in Markdown.

A terminal often has 80 columns, and columns that do not fit are dropped; what a dropped one would have warned of (a
rule that is a reconstruction) stays as a footnote.
"""

from __future__ import annotations

from collections.abc import Sequence

from classroomkd import tasks
from classroomkd.report import vocabulary as words
from classroomkd.report.adaptive_table import AdaptiveTable, Column, markdown_lines
from classroomkd.report.rows import Row
from classroomkd.tasks.metric import Metric

__all__ = [
    "figure_columns",
    "figure_rows",
    "markdown",
    "notes",
    "rich_figures",
    "rich_mentors",
    "rich_results",
]

DAGGER = "†"  # marks an arm whose rule is a reconstruction
STYLES = {"gain": "green", "loss": "red"}


def _result_columns(rows: Sequence[Row]) -> list[Column]:
    columns = [Column("arm", lambda row, _: _label(row), 100, left=True)]
    if len({row["run"] for row in rows}) > 1:
        columns.insert(0, Column("run", lambda row, _: row["run"], 95, left=True))
    columns.append(Column("n", lambda row, _: str(row["test_last"]["n"]), 70))
    if len({row.get("metric") for row in rows}) > 1:
        columns.append(Column("score", lambda row, _: row.get("metric", "accuracy"), 98, left=True))
    say = words.vocabulary_of(rows)
    sign = say.measure.sign
    columns.append(Column(say.heading, lambda row, d: _spread(row, "test_last", d), 99))
    columns.append(Column(f"at best val {sign}".rstrip(), lambda row, d: _spread(row, "test_best", d), 40))
    if any(row["test_ema"]["n"] for row in rows):
        columns.append(Column(f"EMA {sign}".rstrip(), lambda row, d: _spread(row, "test_ema", d), 35))
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

    return Column(
        f"vs {words.alone(name)}", lambda row, d: words.points(row["vs"][name], d, _measure(row)), rank, style=style
    )


def _mentor_columns(rows: Sequence[Row]) -> list[Column]:
    say = words.vocabulary_of(rows)
    return [
        Column("mentor", lambda row, _: row["name"], 100, left=True),
        Column("model", lambda row, _: row["model"] or words.DASH, 60, left=True),
        Column(say.heading, lambda row, d: words.percent(row["accuracy"], d, _measure(row)), 99),
        Column(
            f"val {say.measure.sign}".rstrip(), lambda row, d: words.percent(row["val_accuracy"], d, _measure(row)), 40
        ),
        Column("params", lambda row, _: words.count(row["parameters"]), 80),
        Column("mult-adds", lambda row, _: words.count(row["multiply_adds"]), 50),
        Column(f"{say.seen} seen", lambda row, _: words.thousands(row["samples"]), 90),
        Column("note", lambda row, _: row["note"] or words.DASH, 70, left=True, foot=True),
    ]


def rich_results(rows: Sequence[Row], *, title: str = "") -> AdaptiveTable:
    """The result table for ``rich.print``; fits the width it is given. ``rows`` come from
    :func:`classroomkd.report.result_rows`."""
    decimals = _decimals(rows)
    return AdaptiveTable(rows, _result_columns(rows), decimals, title, notes(rows) if rows else ["No results yet."])


def rich_mentors(rows: Sequence[Row], *, title: str = "") -> AdaptiveTable:
    """The mentors table for ``rich.print``; ``rows`` come from :func:`classroomkd.report.mentor_rows`."""
    return AdaptiveTable(rows, _mentor_columns(rows), 1, title, [] if rows else ["No mentors."])


def figure_rows(rows: Sequence[Row]) -> list[Row]:
    """One row a figure that was measured beside the score that counts: ``figure`` and, by the place of each row of
    :func:`result_rows` (a string), ``{n, mean, sd}`` or None. Empty where nothing was."""
    counted = {row.get("metric") for row in rows}
    names = dict.fromkeys(name for row in rows for name in row.get("metrics", {}) if name not in counted)
    return [
        {"figure": name} | {str(k): row.get("metrics", {}).get(name) for k, row in enumerate(rows)} for name in names
    ]


def figure_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of :func:`figure_rows`: the figure, and each row of the result table."""
    task = str(rows[0].get("task", tasks.DEFAULT)) if rows else tasks.DEFAULT

    def column(place: str, title: str, rank: int) -> Column:
        def cell(row: Row, decimals: int) -> str:
            if not row[place]:
                return words.DASH
            measure = words.measure_of(task, row["figure"])
            return words.plus_minus(row[place]["mean"], row[place]["sd"], decimals, measure)

        return Column(title, cell, rank)

    several = len({row["run"] for row in rows}) > 1
    titles = [f"{row['run']}: {row['arm']}" if several else str(row["arm"]) for row in rows]
    first = Column("test, %", lambda row, _: words.figure_name(row["figure"], task), 100, left=True)
    return [first, *(column(str(k), title, 90 - k) for k, title in enumerate(titles))]


def rich_figures(rows: Sequence[Row], *, title: str = "") -> AdaptiveTable | None:
    """The further figures for ``rich.print``, a column an arm; None where there are none."""
    figures = figure_rows(rows)
    return AdaptiveTable(figures, figure_columns(rows), 1, title, []) if figures else None


def markdown(rows: Sequence[Row]) -> str:
    """The result table as GitHub Markdown with every column, the notes under it, and further figures if there are."""
    decimals = _decimals(rows)
    lines = markdown_lines(rows, _result_columns(rows), decimals) if rows else []
    more = figure_rows(rows)
    below = ["", *markdown_lines(more, figure_columns(rows), decimals)] if more else []
    return "\n".join([*lines, "", *(f"{line}  " for line in notes(rows)), *below, ""]) if rows else "No results yet.\n"


def notes(rows: Sequence[Row], mark: str = DAGGER) -> list[str]:
    """What a reader must know to read the result table: units, intervals, what is missing or reconstructed.

    ``mark`` is what stands beside the arms that are reconstructions.
    """
    lines = _students(rows)
    spelled = {say.metric: say.spelled for row in rows if (say := words.vocabulary_of([row])).spelled}
    lines += [f"{name}: {what}; no accuracy, since no label was there to tell." for name, what in spelled.items()]
    if any(row["test_last"]["n"] > 1 for row in rows):
        lines.append("± is the standard deviation over n seeds.")
    differences = [d for row in rows for d in row["vs"].values() if d]
    if any(d["low"] is not None for d in differences):
        unit = words.vocabulary_of(rows).measure.difference_sign or "each in its score's unit"
        lines.append(f"vs: {unit}, paired by seed, with a 95 % interval; ▲ ▼ where it excludes 0.")
    if any(d["verdict"] == "one seed" for d in differences):
        lines.append("A difference of one seed has no interval and shows nothing; run more: seeds=[0,1,2,3,4].")
    if any(d["low"] is not None and d["low"] == d["high"] for d in differences):
        lines.append("An interval without width (all seeds differ equally) is not marked.")
    if any(row["cost_ratio"] is not None for row in rows):
        lines.append("step: time of a training step over the student's alone.")
    if unfinished := [
        f"{row['arm']} lacks seed {', '.join(map(str, row['missing']))}" for row in rows if row["missing"]
    ]:
        lines.append(f"Unfinished: {'; '.join(unfinished)}. Differences use shared seeds only.")
    borrowed = sorted(
        {(d["arm"], d["run"]) for row in rows for d in row["vs"].values() if d and d["run"] != row["run"]}
    )
    lines += [f"Runs without their own are compared with '{arm}' of {run}." for arm, run in borrowed]
    if exported := [f"{row['arm']} ({row['exported']})" for row in rows if row.get("exported")]:
        lines.append(f"Of these arms the scores are those of a peer, which is exported: {', '.join(exported)}.")
    if any(_reconstructed(row) for row in rows):
        lines.append(f"{mark} {words.vocabulary_of(rows).rebuilt}.")
    return lines


def _students(rows: Sequence[Row]) -> list[str]:
    """Who was taught and tested on what: one line where all rows agree, as they do within a run."""
    lines = []
    samples = words.vocabulary_of(rows).samples
    for student, parameters, data, test in dict.fromkeys(
        (row["student"], row["parameters"], row["data"], row["test"]) for row in rows if not row.get("exported")
    ):
        parts = [f"{student}, {words.count(parameters)} parameters" if student and parameters else student]
        parts.append(f"{test:,} test {samples}" + (f" of {data}" if data else "") if test else data)
        if any(parts):
            lines.append(f"Student: {'; '.join(part for part in parts if part)}.")
    return lines if len(lines) == 1 else []


def _label(row: Row) -> str:
    return f"{row['arm']} {DAGGER}" if _reconstructed(row) else str(row["arm"])


def _reconstructed(row: Row) -> bool:
    return "reconstructed" in str(row["status"])


def _spread(row: Row, key: str, decimals: int) -> str:
    return words.plus_minus(row[key]["mean"], row[key]["sd"], decimals, _measure(row))


def _measure(row: Row) -> Metric:
    return words.vocabulary_of([row]).measure


def _decimals(rows: Sequence[Row]) -> int:
    return words.decimals_for(min((row["test"] or 0 for row in rows), default=0), words.vocabulary_of(rows).measure)
