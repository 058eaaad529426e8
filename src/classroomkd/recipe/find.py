"""Finding recipes: by path, by short name, and the list of those at hand.

Recipes and examples lie beside ``src/`` in the project. A wheel holds them as ``classroomkd/shipped``.
"""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from pathlib import Path

from classroomkd.errors import UserError

__all__ = ["example_files", "find_recipe", "is_shipped", "recipe_files", "shipped"]

_SUFFIXES = (".yaml", ".yml")


def shipped() -> Path | None:
    """The folder of the package's own ``recipes`` and ``examples``: the checkout's, or what a wheel brought."""
    package = Path(__file__).resolve().parents[1]
    return next((folder for folder in (package / "shipped", package.parents[1]) if _holds(folder)), None)


def _holds(folder: Path) -> bool:
    return (folder / "recipes").is_dir() and (folder / "examples").is_dir()


def is_shipped(file: Path) -> bool:
    """Whether a recipe is one of the package's own."""
    folder = shipped()
    return folder is not None and file.resolve().is_relative_to(folder / "recipes")


def _recipe_folders() -> list[Path]:
    """Folders that hold recipes: ``recipes`` in the current folder, and the package's own."""
    own = shipped()
    folders = [Path.cwd() / "recipes", *([own / "recipes"] if own is not None else [])]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def recipe_files() -> dict[str, Path]:
    """Short name (``smoke``, ``classroomkd/cifar100``) -> file, of every recipe at hand."""
    files: dict[str, Path] = {}
    for folder in _recipe_folders():
        for file in sorted(folder.rglob("*")):
            if file.suffix in _SUFFIXES and file.is_file():
                files.setdefault(file.relative_to(folder).with_suffix("").as_posix(), _shown(file))
    return files


def example_files() -> dict[str, Path]:
    """Name -> path of the package's own examples: scripts, and folders that hold a whole plug-in."""
    own = shipped()
    if own is None:
        return {}
    entries = sorted((own / "examples").iterdir())
    return {entry.stem: entry for entry in entries if entry.suffix == ".py" or (entry / "README.md").is_file()}


def _shown(file: Path) -> Path:
    """Relative to the current folder where it lies inside it."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def find_recipe(path: str | Path) -> Path:
    """The file that ``path`` means: itself, the recipe of a run folder, or a short name.

    A short name may be written as the file of a checkout is: ``recipes/smoke.yaml``.

    Raises:
        UserError: there is none; names the nearest.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        if (file / "recipe.yaml").is_file():
            return file / "recipe.yaml"
        raise UserError(
            f"{file} is a folder without recipe.yaml; give the recipe's file, or have one written for the data in it: "
            f"classroomkd init {shlex.quote(str(file))}"
        )
    known = recipe_files()
    name = str(path).removesuffix(".yaml").removesuffix(".yml").removeprefix("recipes/")
    if name in known and not file.is_absolute():
        return known[name]
    if "=" in str(path):
        raise UserError(
            f"'{path}' looks like an override; the recipe's file comes first: classroomkd run RECIPE {path}"
        )
    # Compared without suffixes, or everything that ends in .yaml would look alike.
    nearby = {p.stem: str(file.with_name(p.name)) for p in file.parent.glob("*.y*ml")} if file.parent.is_dir() else {}
    wanted = file.stem if file.suffix in _SUFFIXES or str(file.parent) != "." else name
    match = get_close_matches(wanted, nearby, n=1, cutoff=0.6) or get_close_matches(name, known, n=1, cutoff=0.6)
    if match:
        raise UserError(f"there is no recipe '{path}' (did you mean '{nearby.get(match[0], match[0])}'?)")
    raise UserError(f"there is no recipe '{path}'" + (f"; recipes at hand: {', '.join(known)}" if known else ""))
