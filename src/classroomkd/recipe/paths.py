"""Files and folders a recipe names: found in one place, by one rule, and written back as absolute paths.

A relative path is looked for in the current folder, then in the recipe's folder, then in the folder that the
environment variable ``CLASSROOMKD_DATA`` names. ``~`` and ``$NAME`` are expanded, unless there is a file of that very
name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from classroomkd.data.sources.table import entries
from classroomkd.errors import did_you_mean
from classroomkd.recipe.find import is_shipped, recipe_files
from classroomkd.recipe.nodes import Loc, Node, of_networks
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.sections import WEIGHTS_WORDS
from classroomkd.recipe.stage_nodes import starts

__all__ = ["DATA_VARIABLE", "check_leads_out", "data_sources", "resolve_paths"]

DATA_VARIABLE = "CLASSROOMKD_DATA"
DATA_PARTS = ("source", "train", "val", "test", "unlabelled")


def data_sources(tree: Node) -> Iterator[tuple[Loc, Node]]:
    """Every place of the tree that names a data source as text."""
    for part in DATA_PARTS:
        node = tree.at("data", part)
        if node is not None and isinstance(node.value, str):
            yield ("data", part), node
    for index, node in enumerate(tree.items("data", "unlabelled")):
        if isinstance(node.value, str):
            yield ("data", "unlabelled", index), node


def resolve_paths(tree: Node, folder: Path) -> list[Problem]:
    """Find every file and folder the recipe names and write its absolute path into the tree.

    ``folder`` is the recipe's own. Returns what cannot be found.
    """
    problems: list[Problem] = []
    for loc, node in (*of_networks(tree, "weights"), *of_networks(tree, "checkpoint"), *starts(tree)):
        if node.value in WEIGHTS_WORDS:
            continue
        path, wrong = _find(node.value, folder, Path.is_file)
        if path is None:
            problems.append(problem(tree, loc, wrong or _no_checkpoint(node.value, folder)))
        else:
            node.value = str(path)
    table = entries()
    for loc, node in data_sources(tree):
        name, _, given = node.value.partition(":")
        if name not in table or table[name].argument != "DIR" or not given.strip():
            continue  # check_data says what is wrong with these
        fits = _is_dir_or_zip if table[name].zips else Path.is_dir
        path, wrong = _find(given, folder, fits)
        if path is None and _is_ours(node):
            problems.append(problem(tree, loc, f"there is no folder '{given}' here; {_name_yours(name, node, loc)}"))
        elif path is None:
            problems.append(problem(tree, loc, wrong or _no_folder(name, given, folder, loc)))
        else:
            node.value = f"{name}:{path}"
    labels = tree.at("data", "labels", "file")
    if labels is not None and isinstance(labels.value, str) and labels.value:
        path, wrong = _find(labels.value, folder, Path.is_file)
        if path is None:
            nowhere = _near(labels.value, folder, Path.is_file) or _looked_in(labels.value, folder)
            problems.append(problem(tree, ("data", "labels", "file"), wrong or f"there is no such file{nowhere}"))
        else:
            labels.value = str(path)
    cache = tree.child("cache")
    if cache is not None and isinstance(cache.value, str) and cache.value:
        cache.value = os.path.abspath(os.path.expanduser(os.path.expandvars(cache.value)))
    return problems


def _is_dir_or_zip(path: Path) -> bool:
    return path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file())


def _is_ours(node: Node) -> bool:
    """Whether a value stands in a recipe of the package, whose folders are placeholders."""
    return bool(node.origin.place) and is_shipped(Path(node.origin.place))


def _name_yours(name: str, node: Node, loc: Loc) -> str:
    """What to type where a recipe of the package is run as it is."""
    recipe = next((short for short, file in recipe_files().items() if str(file) == node.origin.place), "RECIPE")
    return f"name yours: classroomkd run {recipe} {'.'.join(map(str, loc))}={name}:DIR"


def check_leads_out(tree: Node, file: Path, out: Path | None) -> list[Problem]:
    """Whether the ``name`` and ``cache`` that a recipe's file says stay where its run goes.

    The file may be somebody else's. What is typed (``name=…``, ``cache=…``, ``--out``) may lead anywhere.

    Args:
        tree: the recipe, after :func:`resolve_paths`.
        file: it was read from.
        out: the run folder, where it was typed; ``runs/NAME`` otherwise.
    """
    problems: list[Problem] = []
    name, cache = tree.child("name"), tree.child("cache")
    runs = Path("runs")
    if out is None and name is not None and isinstance(name.value, str):
        out = runs / name.value
        if _from_file(name, file) and runs.resolve() not in out.resolve().parents:
            sentence = f"leads out of the folder {runs}, where the run goes; type where to: --out DIR"
            return [problem(tree, ("name",), sentence)]
    if out is not None and cache is not None and isinstance(cache.value, str) and _from_file(cache, file):
        parent, place = out.resolve().parent, Path(cache.value).resolve()
        if parent not in (place, *place.parents):
            sentence = f"leads out of {parent}, where the run goes; if it is meant, type it: cache={cache.value}"
            problems.append(problem(tree, ("cache",), sentence))
    return problems


def _from_file(node: Node, file: Path) -> bool:
    return node.origin.place == str(file)


def _roots(folder: Path) -> list[Path]:
    roots = [Path.cwd(), folder.absolute()]
    if os.environ.get(DATA_VARIABLE):
        roots.append(Path(os.environ[DATA_VARIABLE]).expanduser().absolute())
    return list(dict.fromkeys(roots))


def _find(text: str, folder: Path, fits: Callable[[Path], bool]) -> tuple[Path | None, str | None]:
    """The absolute path of ``text``, or why it cannot even be looked for."""
    typed = os.path.expanduser(text.strip())
    for root in _roots(folder):
        if "$" in typed and fits(root / typed):
            return Path(os.path.normpath(root / typed)), None
    expanded = os.path.expanduser(os.path.expandvars(text.strip()))
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        return None, f"the environment variable {unset[1]} is not set; set it, or write the path itself"
    for root in _roots(folder):
        if fits(root / expanded):
            return Path(os.path.normpath(root / expanded)), None
    return None, None


def _looked_in(text: str, folder: Path) -> str:
    if Path(text).expanduser().is_absolute():
        return ""
    return f" (looked in {', '.join(map(str, _roots(folder)))})"


def _near(text: str, folder: Path, fits: Callable[[Path], bool]) -> str:
    """A neighbour with a similar name, written as the user would."""
    wanted = Path(os.path.expanduser(os.path.expandvars(text)))
    for root in _roots(folder):
        parent = (root / wanted).parent
        if parent.is_dir():
            near = did_you_mean(wanted.name, (entry.name for entry in parent.iterdir() if fits(entry)))
            if near:
                given = os.path.dirname(text)
                return near.replace("'", f"'{given}/" if given else "'", 1)
    return ""


def _no_checkpoint(text: str, folder: Path) -> str:
    directory, _ = _find(text, folder, Path.is_dir)
    if directory is not None:
        inside = sorted(p.name for p in directory.iterdir() if p.suffix in (".safetensors", ".pth", ".pt"))
        held = f"; it holds {', '.join(inside[:4])}" if inside else ""
        return f"is a folder; give the file{held}"
    if near := did_you_mean(text.strip().lower(), WEIGHTS_WORDS):
        return f"there is no such file{near}"
    if text.strip().lower() == "none":
        return "there is no such file (nothing is written null)"
    return f"there is no such file{_near(text, folder, Path.is_file) or _looked_in(text, folder)}"


def _no_folder(name: str, given: str, folder: Path, loc: Loc) -> str:
    file, _ = _find(given, folder, Path.is_file)
    if file is not None:
        return f"'{given}' is a file; give the folder it lies in"
    key = ".".join(map(str, loc))
    return (
        f"there is no folder '{given}'{_near(given, folder, Path.is_dir) or _looked_in(given, folder)}; "
        f"give the folder: {key}={name}:DIR"
    )
