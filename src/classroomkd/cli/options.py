"""Options that several verbs share, so that they are spelt and explained the same way everywhere.

Also :func:`resume_with`: what the user is told to type when a run is interrupted. Imports nothing heavy.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DeviceOption",
    "DryRun",
    "Force",
    "JsonOutput",
    "OutOption",
    "Overrides",
    "Quiet",
    "RecipeArgument",
    "Resume",
    "RunFolder",
    "RunFolders",
    "TrustCode",
    "interrupted",
    "resume_with",
]

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or its short name (classroomkd list recipes).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe: student=resnet8x4 method.tau=8 seeds=[0,1]."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Run folder to make.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out where it stopped.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan and its cost, and stop.")]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Let py: models and data of the recipe run their code.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DeviceOption = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

_RESUME: ContextVar[str | None] = ContextVar("classroomkd_resume", default=None)


def resume_with(command: str | None) -> None:
    """Remember the command that continues what is being done; ``Ctrl-C`` prints it. None forgets it."""
    _RESUME.set(command)


def interrupted() -> str | None:
    """The command that continues the interrupted work, or None where nothing is left to continue."""
    return _RESUME.get()
