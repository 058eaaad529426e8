"""A first recipe as text with comments, out of what a task proposes for somebody's data (``classroomkd init``)."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from classroomkd import tasks
from classroomkd._printable import printable
from classroomkd.errors import UserError, did_you_mean
from classroomkd.tasks.start import Line, Start

__all__ = ["kinds", "propose", "recipe_text"]

WIDTH = 120
WEIGHTS = (".safetensors", ".pth", ".pt")


def kinds() -> dict[str, str]:
    """What ``init`` may be asked for (``own-images``, ``pose``, …) -> the task whose data these are."""
    return {row.description.start: row.name for row in tasks.rows() if row.description.start}


def propose(place: Path, kind: str | None = None) -> Start:
    """What a first recipe for the data in ``place`` says. Without a ``kind``, that of the first task which can read
    it; the default task is asked last, as any folder of folders may be classes.

    Raises:
        UserError: an unknown kind, and why nobody can read it.
    """
    known = kinds()
    if kind is not None and kind not in known:
        raise UserError(f"there is no start called '{kind}'{did_you_mean(kind, known)}; there are {', '.join(known)}")
    asked = [kind] if kind is not None else sorted(known, key=lambda name: known[name] == tasks.DEFAULT)
    wrong: dict[str, str] = {}
    for name in asked:
        try:
            return tasks.describe(known[name]).look(place)
        except UserError as error:
            wrong[name] = str(error)
    if len(wrong) == 1:
        raise UserError(next(iter(wrong.values())))
    raise UserError(f"{place} is read by none of {', '.join(wrong)}:\n" + "\n".join(map(_told, wrong.items())))


def _told(item: tuple[str, str]) -> str:
    return f"  {item[0]}: {item[1]}"


def recipe_text(start: Start, place: str, name: str, file: str, checkpoints: Sequence[str] = ()) -> str:
    """The recipe.

    Args:
        start: what the task proposes.
        place: of the data, as the recipe is to say it.
        name: of the experiment and its run folder.
        file: where the recipe goes, as the user types it.
        checkpoints: files of weights that lie about, to be named in comments.
    """
    data = [Line("source", f"{start.source}:{place}"), *start.data]
    sections: list[Iterable[str]] = [
        _head(start, place, file),
        [f"name: {_written(name)}"],
        [f"task: {start.task}"] if start.task else [],
        ["", "data:", *_lines(data, "  ")],
        ["", *_lines([start.student])],
        _mentors(start, checkpoints),
        [
            "",
            "# The student alone says what the mentors are worth; plain averaging, what choosing among them is worth.",
            "methods: [none, average, classroomkd]",
        ],
        ["", "train:", *_lines(start.train, "  ")],
        ["", *_lines([Line("seeds", [0, 1, 2], "three students each; seeds: 0 for a first look")])],
    ]
    return "\n".join(line for section in sections for line in section) + "\n"


def _head(start: Start, place: str, file: str) -> list[str]:
    found = [line for sentence in start.found for line in _comment(sentence)]
    return [
        *_comment(
            f"{Path(place).name or place}: {start.title}. Written by `classroomkd init`; every line may be changed."
        ),
        *found,
        "#",
        f"#   classroomkd run {file} --dry-run   checks everything and says what it will cost",
        f"#   classroomkd run {file}             trains the mentors and the students",
        "",
    ]


def _mentors(start: Start, checkpoints: Sequence[str]) -> list[str]:
    """Networks that the run trains, and how trained ones are named in their place."""
    known = [(Path(file).stem, file) for file in checkpoints] or [("mine", "mine.safetensors")]
    named = [start.mentor.replace("NAME", _written(name)).replace("FILE", _written(file)) for name, file in known]
    return [
        "",
        "# The networks that teach. Those without weights are trained by the run, once, and kept. For a trained one of",
        "# yours: its network, its file, and the mean and std it was trained with; --dry-run says what it scores.",
        "mentors:",
        *(f"  - {name}" for name in start.mentors),
        *(["  # Files of weights that lie here; which network is each?"] if checkpoints else []),
        *(f"  # - {line}" for line in named),
    ]


def _lines(lines: Sequence[Line], indent: str = "") -> list[str]:
    """Keys with their reasons beside them, in a column, or above where there is no room."""
    pairs = [f"{indent}{line.key}: {_value(line.value)}" for line in lines]
    column = max((len(text) for text, line in zip(pairs, lines, strict=True) if line.why), default=0) + 3
    written = []
    for text, line in zip(pairs, lines, strict=True):
        beside = f"{text:<{column}}# {line.why}"
        if not line.why:
            written.append(text)
        elif len(beside) <= WIDTH:
            written.append(beside)
        else:
            written += [*(f"{indent}{above}" for above in _comment(line.why)), text]
    return written


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(printable(" ".join(text.split())), WIDTH - 4)]


def _value(value: object) -> str:
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else _written(value)


def _written(value: object) -> str:
    """A plain value as YAML; text that YAML would read as anything else in quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    special = set(value) & set("\"'#{}[]&*!|>%@`,\\\n") or ": " in value or value != value.strip() or value[-1:] == ":"
    if not special and yaml.safe_load(f"[{value}]") == [value]:
        return value
    return json.dumps(value, ensure_ascii=False)
