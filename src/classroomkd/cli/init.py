"""``classroomkd init``: a first recipe for one's own data, with comments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from classroomkd.errors import UserError

__all__ = ["init"]


def init(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="own-images, pose, …; found out by looking where it is left out. Or a recipe at hand, to be copied.",
            show_default=False,
        ),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where the data lie; this folder by default.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="The recipe's file; it must not exist.")] = Path("recipe.yaml"),
) -> None:
    """Look at a folder of data and write a recipe for it, with the reason beside every number.

    Nothing is trained, and nothing that exists is replaced.
    """
    from classroomkd._files import atomic_write_text
    from classroomkd.recipe.starting import kinds

    if os.path.lexists(out):
        raise UserError(f"{out} exists already, and is not replaced; give another name: --out FILE")
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {out}: a recipe is a .yaml file")
    if place is None and kind is not None and kind not in kinds():
        if not (Path(kind).expanduser().exists() or "@" in kind):
            atomic_write_text(out, _copied(kind))
            print(f"{out}: a copy of {kind}; check it without training: classroomkd run {out} --dry-run")
            return
        place = Path(kind)
        kind = None
    text, found = _written(kind, Path.cwd() if place is None else place.expanduser(), place, out)
    atomic_write_text(out, text)
    for sentence in found:
        print(sentence)
    print(f"{out} is written; check it without training: classroomkd run {out} --dry-run")


def _copied(name: str) -> str:
    """The text of a recipe at hand."""
    from classroomkd.errors import did_you_mean
    from classroomkd.recipe import recipe_files
    from classroomkd.recipe.starting import kinds

    files = recipe_files()
    if name not in files:
        near = did_you_mean(name, [*kinds(), *files])
        raise UserError(
            f"'{name}' is no folder, and no start or recipe of that name is there{near}; starts are "
            f"{', '.join(kinds())}: classroomkd init {next(iter(kinds()))} DIR"
        )
    return files[name].read_text(encoding="utf-8")


def _written(kind: str | None, folder: Path, typed: Path | None, out: Path) -> tuple[str, tuple[str, ...]]:
    """The recipe for the data in a folder, and what was found there; it is one that loads."""
    import yaml

    from classroomkd.recipe import make_recipe
    from classroomkd.recipe.starting import WEIGHTS, propose, recipe_text

    try:
        start = propose(folder, kind)
    except UserError as error:
        if typed is not None:
            raise
        raise UserError(f"{error}\nSay where the data lie: classroomkd init {kind or 'KIND'} DIR") from error
    here = out.absolute().parent == Path.cwd()
    place = str(folder if here and typed is not None else folder.absolute())
    weights = sorted(file.name for file in Path.cwd().iterdir() if file.suffix in WEIGHTS) if here else []
    name = folder.absolute().name.partition(".")[0] or out.stem
    text = recipe_text(start, place, name, str(out), weights[:8])
    make_recipe(yaml.safe_load(text), folder=out.absolute().parent)  # a name that no recipe can hold is said here
    return text, start.found
