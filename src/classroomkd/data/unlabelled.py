"""Pictures without labels beside labelled ones: ``data.unlabelled``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from classroomkd.data.images import ImageSet, Part
from classroomkd.data.sources.base import Raw, Request, Source
from classroomkd.data.sources.table import find_entry, option_problems
from classroomkd.data.spec import PARTS, DataSettings
from classroomkd.data.targets import CLASS, UNLABELLED
from classroomkd.errors import UserError

__all__ = ["Extra", "listed", "open_extra", "options_of", "refuse_twice"]

_WHERE = "data.unlabelled"
_FOLDER = ", or for a folder of which some pictures have labels data.labels: {file: FILE}"
Open = Callable[[Any, Request], Source | ImageSet]


@dataclass(frozen=True, eq=False)
class Extra:
    """Pictures that train without a label.

    Attributes:
        parts: their samples, by source; ids go on where those of the labelled source end.
        raws: what each was read from.
        fingerprint: of their sources, in order.
        notes: what the user should read.
    """

    parts: list[Part]
    raws: list[Raw]
    fingerprint: str
    notes: list[str]


def listed(value: Any) -> list[Any]:
    """The sources that ``data.unlabelled`` names: none, one or several."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def open_extra(
    wanted: DataSettings, request: Request, open_one: Open, shape: tuple[int, int, int], first: int
) -> Extra:
    """Open what ``data.unlabelled`` names.

    Args:
        wanted: what the user said about data.
        request: how the labelled source was opened.
        open_one: opens a source, or what stands for one in Python.
        shape: (C, H, W) that the pictures are brought to.
        first: the first free id.

    Raises:
        UserError: what a source finds wrong; pictures that cannot be brought to that shape.
    """
    side = shape[1] if shape[1] == shape[2] else None
    request = replace(request, size=side, labels=False, classes=None)
    extra = Extra([], [], "", [])
    marks = []
    for value in listed(wanted.unlabelled):
        name = f"'{value}'" if isinstance(value, str) else f"a {type(value).__name__}"
        try:
            source = open_one(value, request)
        except UserError as error:
            raise UserError(f"{_WHERE}: {str(error).removeprefix('data: ')}") from error
        if not isinstance(source, Source):
            raise UserError(f"{_WHERE}: it is a whole ImageSet ({name}); give a Dataset, or the name of a source")
        raw = source.parts["all"] if "all" in source.parts else source.parts["train"]
        if raw.pixels.shape != shape:
            raise UserError(
                f"{_WHERE}: the pictures of {name} are {raw.pixels.shape[1]}x{raw.pixels.shape[2]}, those with labels"
                f" {shape[1]}x{shape[2]}; set data.size to one size for both"
            )
        target = torch.full((len(raw.target),), UNLABELLED, dtype=torch.int64)
        raw = replace(raw, target=target, kind=CLASS)
        extra.parts.append(Part(raw.pixels, target, raw.places + first, torch.arange(len(target))))
        extra.raws.append(raw)
        first += raw.total
        marks.append(source.fingerprint)
        extra.notes.extend(f"{_WHERE}: {note}" for note in source.notes)
        if left := [part for part in PARTS[1:] if part in source.parts]:
            extra.notes.append(f"{_WHERE}: of {name} the training part is taken, not its {' and '.join(left)}")
        extra.notes.append(f"{len(target)} pictures of '{source.name}' train without a label")
    return replace(extra, fingerprint=hashlib.sha256(" ".join(marks).encode()).hexdigest())


def options_of(source: Any, wanted: DataSettings, reads: str = "classes") -> dict[str, Any]:
    """``data.options`` for one of several sources, whose samples are to have ``reads``: those that it knows.

    Raises:
        UserError: an option that none of the sources knows.
    """
    given = [getattr(wanted, key) for key in ("source", *PARTS)]
    named = [value for value in (*given, *listed(wanted.unlabelled)) if isinstance(value, str)]
    names = [value.partition(":")[0] for value in named]
    if wrong := option_problems(names, wanted.options, reads):
        options = wanted.options
        raise UserError("\n".join(f"data.options.{key} = {options[key]!r}: {text}" for key, text in wrong.items()))
    entry = find_entry(source.partition(":")[0]) if isinstance(source, str) else None
    known = None if entry is None else entry.options_for(reads)
    return {key: value for key, value in wanted.options.items() if known is None or key in known}


def refuse_twice(wanted: DataSettings, remedy: str = _FOLDER) -> None:
    """Refuse pictures that would train with a label and without, or twice.

    Raises:
        UserError: naming what is given twice: the same object, source or folder (by any path), or a folder of pictures
            and one inside it.
    """
    before = [(value, f"data.{key}") for key in ("source", *PARTS) if (value := getattr(wanted, key)) is not None]
    for value in listed(wanted.unlabelled):
        for other, key in before:
            if _same(value, other):
                name = f"'{value}'" if isinstance(value, str) else f"the same {type(value).__name__}"
                raise UserError(
                    f"{_WHERE}: {name} has pictures that {key}{_told(other, value)} has already; give others{remedy}"
                )
        before.append((value, _WHERE))


def _told(other: Any, value: Any) -> str:
    return f" ('{other}')" if isinstance(other, str) and other != value else ""


def _same(one: Any, two: Any) -> bool:
    if not isinstance(one, str) or not isinstance(two, str):
        return one is two
    first, second = _place(one), _place(two)
    if first is None or second is None:
        return one == two
    if first == second:
        return True
    nested = first in second.parents or second in first.parents
    return nested and all(_walks(text) for text in (one, two))


def _walks(text: str) -> bool:
    entry = find_entry(text.partition(":")[0])
    return entry is not None and entry.walks


def _place(text: str) -> Path | None:
    """What a source's argument leads to; None where it is no path."""
    argument = text.partition(":")[2].strip()
    path = Path(argument).expanduser()
    return Path(os.path.realpath(path)) if argument and os.path.exists(path) else None
