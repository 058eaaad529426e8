"""Finding runs: folders, files and patterns to the summaries behind them."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from classroomkd.errors import UserError
from classroomkd.report.summary import NAME, Summary, load_summary

__all__ = ["collect"]

DEEPEST = 4  # how far below a given folder runs are looked for


def collect(paths: Iterable[str | Path] | str | Path) -> list[Summary]:
    """The runs behind ``paths``: run folders, summary files, folders that hold runs, or glob patterns of these.

    Returned in the order given (inside a folder: by name, numbers by value), each run once. Folders without a
    finished student are passed over when found by search, and refused when given by name.
    Raises :class:`UserError` when a path leads to no run.
    """
    given: Sequence[str | Path] = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise UserError("No run was given. Name one or more run folders, e.g. `classroomkd compare runs/*`.")
    runs: dict[Path, Summary] = {}
    for item in given:
        for file in _expand(str(item)):
            key = file.resolve()
            if key not in runs:
                runs[key] = load_summary(file)
    return list(runs.values())


def _expand(item: str) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        if (path / NAME).exists() or (path / "recipe.yaml").exists():
            return [path / NAME]
        below = _search(path)
        if not below:
            raise UserError(f"{item}: no run in this folder (no {NAME} up to {DEEPEST} levels down).")
        return below
    matches = sorted(glob.glob(str(path)), key=_natural) if glob.has_magic(item) else []
    if not matches:
        kind = "nothing matches this pattern" if glob.has_magic(item) else "not found"
        near = path.parent
        beside = sorted({file.parent.name for file in _search(near)}, key=_natural)[:5] if near.is_dir() else []
        hint = f" Runs in {near}: {', '.join(beside)}." if beside else ""
        raise UserError(f"{item}: {kind}. Give a run folder (it holds {NAME}).{hint}")
    files: list[Path] = []
    for match in map(Path, matches):
        if match.is_dir():
            files += [match / NAME] if (match / NAME).exists() else _search(match)
        elif match.name == NAME:
            files.append(match)
    if not files:
        raise UserError(f"{item}: matches {len(matches)} path(s), but none of them is a run with a {NAME}.")
    return files


def _search(folder: Path) -> list[Path]:
    files: list[Path] = []
    level = [folder]
    for _ in range(DEEPEST):
        below = [child for parent in level for child in _folders(parent)]
        files += [child / NAME for child in below if (child / NAME).exists()]
        level = [child for child in below if not (child / NAME).exists()]
    return sorted(files, key=lambda file: _natural(str(file)))


def _folders(parent: Path) -> list[Path]:
    try:
        return [child for child in parent.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        return []


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
