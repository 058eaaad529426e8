"""Reading a run's ``summary.json`` and ``metrics.jsonl``: checked once here, trusted everywhere else.

A summary is written again after every seed, so one with missing seeds is an ordinary unfinished run. Numbers that
are not finite are read as missing (``None``). Scores are fractions in 0..1.
"""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import UserError
from .files import read_json, read_metrics

__all__ = [
    "Arm",
    "Data",
    "Entry",
    "MentorInfo",
    "Student",
    "Summary",
    "collect",
    "load_summary",
    "read_json",
    "read_metrics",
]

SCHEMA = 1
NAME = "summary.json"
DEEPEST = 4  # how far below a given folder runs are looked for


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
Count = Annotated[int | None, BeforeValidator(_finite_or_none)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Data(_Part):
    """The data a run used; counts are samples, ``student_train`` those whose labels the student saw.

    ``fingerprint`` stands for the content, ``parts`` (``train``, ``student``, ``val``, ``test``) for which samples
    are in which part; runs written by earlier versions have neither.
    """

    name: str = ""
    classes: list[str] = []
    train: Count = None
    student_train: Count = None
    val: Count = None
    test: Count = None
    notes: list[str] = []
    fingerprint: str = ""
    parts: Annotated[dict[str, str], BeforeValidator(_empty_if_none)] = {}


class Student(_Part):
    """The taught network: its name and size."""

    model: str = ""
    parameters: Count = None
    multiply_adds: Number = None


class Arm(_Part):
    """One method of the run; ``folder`` is where its seeds lie, below the run folder."""

    label: str
    folder: str = ""
    method: str = ""
    options: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = {}
    status: str = ""
    cost: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = {}


class Entry(_Part):
    """One finished student: an arm and a seed. Scores are fractions, ``seconds`` wall time, ``*_ms`` per step."""

    method: str
    seed: int
    test_last: Number = None
    test_best: Number = None
    test_ema: Number = None
    best_epoch: Number = None
    val_last: Number = None
    val_best: Number = None
    steps: Count = None
    seconds: Number = None
    step_ms: Number = None
    floor_ms: Number = None
    cost_ratio: Number = None


class MentorInfo(_Part):
    """One mentor: test accuracy (also per class), size, and how many labels it was trained on (``None``: unknown)."""

    name: str
    model: str = ""
    accuracy: Number = None
    val_accuracy: Number = None
    parameters: Count = None
    multiply_adds: Number = None
    per_class: list[Number] = []
    samples: Count = None
    note: str | None = ""
    seconds: Number = None


class Summary(_Part):
    """``summary.json``, checked; ``root`` is the run folder it was read from.

    ``train`` is how the students were trained, every key of the recipe's section; empty in runs of earlier versions.
    """

    schema_: int = Field(alias="schema")
    name: str = ""
    task: str = "classification"
    created: str = ""
    command: str = ""
    seconds: Number = None
    data: Data = Data()
    student: Student = Student()
    train: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = {}
    arms: list[Arm] = []
    planned: list[int] = Field(default=[], alias="seeds")
    entries: list[Entry] = []
    mentors: list[MentorInfo] = []
    bank: dict[str, Any] | None = None
    root: Path = Field(default=Path(), exclude=True)

    def scores(self, label: str, field: str = "test_last") -> dict[int, float | None]:
        """``seed -> score`` of one arm, for any number of :class:`Entry` (``test_last``, ``cost_ratio``, …)."""
        return {entry.seed: getattr(entry, field) for entry in self.entries if entry.method == label}

    def seeds(self) -> list[int]:
        """Every seed that was planned or that any arm has finished, sorted."""
        return sorted({*self.planned, *(entry.seed for entry in self.entries)})

    def missing(self) -> dict[str, list[int]]:
        """``arm label -> seeds`` it has not finished, of :meth:`seeds`; empty for a whole run."""
        seeds = set(self.seeds())
        gaps = {arm.label: sorted(seeds - set(self.scores(arm.label))) for arm in self.arms}
        return {label: gap for label, gap in gaps.items() if gap}


def load_summary(path: str | Path) -> Summary:
    """Read and check the summary of a run: ``path`` is its folder or the file itself.

    Raises :class:`UserError` naming the file when it is missing, cut off, of another schema, or not a summary.
    """
    file = Path(path)
    if file.is_dir():
        file = file / NAME
    if not file.exists():
        if (file.parent / "recipe.yaml").exists():
            raise UserError(
                f"{file.parent}: this run has no {NAME} yet: no student has finished. "
                "Let it run on, or go on with it by the same command and --resume."
            )
        raise UserError(f"{file}: not found. Give the folder that `classroomkd run --out` wrote (it holds {NAME}).")
    raw = read_json(file)
    if not isinstance(raw, dict) or "schema" not in raw:
        raise UserError(f'{file}: this is not a run\'s summary (no "schema" in it). Give a run folder.')
    if raw["schema"] != SCHEMA:
        raise UserError(
            f"{file}: written with summary schema {raw['schema']!r}; this version of classroomkd reads schema "
            f"{SCHEMA}. Read it with the version that wrote it (environment.json says which), or run again."
        )
    try:
        summary = Summary.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(
            f"{file}: {place}: {first['msg']}{more}. The file was changed by hand or by another program; run again."
        ) from None
    summary.root = file.parent
    _name_arms(summary)
    return summary


def _name_arms(summary: Summary) -> None:
    """Entries of an arm that is not listed get one, so that no result is lost for want of a heading."""
    known = {arm.label for arm in summary.arms}
    for entry in summary.entries:
        if entry.method not in known:
            known.add(entry.method)
            summary.arms.append(Arm(label=entry.method, folder=entry.method, method=entry.method))


def collect(paths: Iterable[str | Path] | str | Path) -> list[Summary]:
    """The runs behind ``paths``: run folders, summary files, folders that hold runs, or glob patterns of these.

    Returned in the order given (inside a folder: by name, numbers by value), each run once. Folders without a
    finished student are passed over when found by search, and refused when given by name.
    Raises :class:`UserError` when a path leads to no run.
    """
    given: Sequence[str | Path] = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise UserError("No run was given. Name one or more run folders, e.g. `classroomkd compare runs/*`.")
    found: dict[Path, Summary] = {}
    for item in given:
        for file in _expand(str(item)):
            key = file.resolve()
            if key not in found:
                found[key] = load_summary(file)
    return list(found.values())


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
