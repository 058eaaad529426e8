"""What the verbs share: arguments and options that are spelt and explained the same way everywhere, and what is said.

Imports nothing heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Device",
    "FlipTest",
    "JsonOutput",
    "JsonSummary",
    "PrintJson",
    "Quiet",
    "RecipeName",
    "StudentPath",
    "TrustCode",
    "TrustModels",
    "Which",
    "interrupted",
    "new_table",
    "note_unlisted",
    "resume_with",
    "tell",
]

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or a short name such as smoke.", metavar="RECIPE")]
# Where a student lies; classroomkd.export.student.find_student checks both.
StudentPath = Annotated[Path, typer.Argument(help="A run folder, a seed's folder, or a student.safetensors.")]
Which = Annotated[str, typer.Option(help="last, best or ema.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="student, or a peer that was trained beside it; the one that the recipe exports by default.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
FlipTest = Annotated[
    bool | None,
    typer.Option(
        "--flip-test/--no-flip-test",
        help="Pose: the mean of a crop's and its mirror image's answers; the run's own setting by default.",
        show_default=False,
    ),
]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Allow py: models and data to run.")]
TrustModels = Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JsonSummary = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
PrintJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

_RESUME: ContextVar[str | None] = ContextVar("classroomkd_resume", default=None)


def new_table(headings: Sequence[str], left: Sequence[str], title: str | None = None, *, fold: bool = False) -> Table:
    """A table of figures, which stand to the right; the columns ``left`` are text. ``fold``: long cells go on below."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(
            heading, justify="left" if heading in left else "right", overflow="fold" if fold else "ellipsis"
        )
    return table


def tell(kind: str, text: str) -> None:
    """A sentence that the user should read, on stderr: a ``note``, about the ``data``, a ``warning``."""
    print(f"{kind}: {text}", file=sys.stderr)


def resume_with(command: str | None) -> None:
    """Remember the command that continues what is being done; None forgets it.

    ``Ctrl-C``, a stopped run and a full disk print it.
    """
    _RESUME.set(command)


def interrupted() -> str | None:
    """The command that continues the interrupted work, or None where nothing is left to continue."""
    return _RESUME.get()


def note_unlisted(path: Path) -> None:
    """Say on stderr that a run's file has no checksum, where it has none; files that lie in no run need none."""
    from classroomkd._sums import SUMS, unlisted
    from classroomkd.export.find import own_run

    ours = (path.parent / SUMS).exists() or own_run(path) is not None
    if ours and (sentence := unlisted(path)) is not None:
        print(f"note: {sentence}", file=sys.stderr)
