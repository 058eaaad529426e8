"""The table of data sources: readable without torch; a source's module is imported when it is opened.

A source of a plug-in enters through the entry-point group ``classroomkd.sources``: the point's name is the source's,
its value ``module:ENTRY``, an :class:`Entry`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from classroomkd.data.sources.guessing import source_meant
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.sources.base import Request

__all__ = [
    "HANDED",
    "PERSON_OPTIONS",
    "TABLE",
    "Entry",
    "describe_sources",
    "entries",
    "entry_names",
    "find_entry",
    "kind_of",
    "open_source",
    "option_problems",
    "source_names",
    "source_problem",
]

GROUP = "classroomkd.sources"
HANDED = "python"
"""What stands for data that were handed over in Python, in recipes that runs write."""


@dataclass(frozen=True)
class Entry:
    """One source.

    Attributes:
        opens: by what its samples have (``classes``, ``persons``, or a word of a plug-in's task) the function that
            opens it, ``module:function``, called with what follows the colon and a ``Request``.
        summary: one line.
        argument: what follows the colon; None when nothing does.
        needs: what must be installed or said.
        trust: whether it runs code of the user's.
        zips: whether a zip archive may stand where ``argument`` says DIR.
        walks: whether it reads every picture below DIR.
        options: the keys allowed in ``data.options`` with the types they take; None admits any (they go to a factory).
        more: further keys, by what the samples have.
    """

    opens: Mapping[str, str]
    summary: str
    argument: str | None = None
    needs: str = ""
    trust: bool = False
    zips: bool = False
    walks: bool = False
    options: Mapping[str, tuple[type, ...]] | None = field(default_factory=dict)
    more: Mapping[str, Mapping[str, tuple[type, ...]]] = field(default_factory=dict)

    def options_for(self, reads: str) -> Mapping[str, tuple[type, ...]] | None:
        """The keys allowed where its samples are to have ``reads``; None admits any."""
        return None if self.options is None else {**self.options, **self.more.get(reads, {})}


_HERE = "classroomkd.data.sources"
_NUMBER = (int, float)
_TEXT = (str,)

PERSON_OPTIONS: dict[str, tuple[type, ...]] = {
    "canvas": _NUMBER, "padding": _NUMBER, "memory_gib": _NUMBER, "metric": _TEXT, "skeleton": _TEXT, "scale": _NUMBER,
    "rotation": _NUMBER, "rotation_p": _NUMBER, "half_body": _NUMBER, "flip": _NUMBER,
}  # fmt: skip
"""Options of every source of persons: see ``people.options``."""

TABLE: dict[str, Entry] = {
    "puppets": Entry(
        {"classes": f"{_HERE}.puppets:open_puppets", "persons": f"{_HERE}.puppets:open_puppet_people"},
        "jointed figures in ten postures, drawn on the spot; for demos and tests",
        options={"train": (int,), "test": (int,), "hard": _NUMBER, "seed": (int,), "image_size": (int,)},
        more={"persons": PERSON_OPTIONS},
    ),
    "digits": Entry(
        {"classes": f"{_HERE}.digits:open_digits"},
        "1,797 handwritten digits of 8x8 pixels that come with scikit-learn",
        needs='pip install "classroomkd[digits]"',
    ),
    "fashion-mnist": Entry(
        {"classes": f"{_HERE}.fashion_mnist:open_fashion_mnist"},
        "70,000 pieces of clothing of 28x28 pixels: the authors' idx files, gzipped or not",
        argument="DIR",
    ),
    "cifar10": Entry(
        {"classes": f"{_HERE}.cifar:open_cifar10"},
        "60,000 photographs of 32x32 pixels in 10 classes: official binary or python archive",
        argument="DIR",
        options={"classes": (int,)},
    ),
    "cifar100": Entry(
        {"classes": f"{_HERE}.cifar:open_cifar100"},
        "60,000 photographs of 32x32 pixels in 100 classes: official binary or python archive, or WebP strips in zips",
        argument="DIR",
        options={"classes": (int,)},
    ),
    "imagefolder": Entry(
        {"classes": f"{_HERE}.imagefolder:open_imagefolder"},
        "your own images: DIR/class/*.jpg, or DIR/train, DIR/val and DIR/test of that kind",
        argument="DIR",
        walks=True,
        options={"memory_gib": _NUMBER},
    ),
    "images": Entry(
        {"classes": f"{_HERE}.images:open_images", "persons": f"{_HERE}.images:open_whole_people"},
        "your own pictures without labels: DIR or a zip, pictures at any depth",
        argument="DIR",
        zips=True,
        walks=True,
        options={"memory_gib": _NUMBER},
        more={"persons": PERSON_OPTIONS},
    ),
    "coco-keypoints": Entry(
        {"persons": f"{_HERE}.coco_keypoints:open_coco"},
        "persons with joints, in COCO's format: DIR or a zip with annotations and images, or one annotation file",
        argument="DIR_OR_ZIP",
        options={
            "train": _TEXT,
            "val": _TEXT,
            "test": _TEXT,
            "images": _TEXT,
            "boxes": _TEXT,
            "category": (str, int),
        },
        more={"persons": PERSON_OPTIONS},
    ),
    "mpii": Entry(
        {"persons": f"{_HERE}.mpii:open_mpii"},
        "MPII Human Pose: DIR or a zip with annot/*.json and images",
        argument="DIR_OR_ZIP",
        options={"train": _TEXT, "val": _TEXT, "test": _TEXT, "images": _TEXT, "base": (int,)},
        more={"persons": PERSON_OPTIONS},
    ),
    "py": Entry(
        {"classes": f"{_HERE}.python:open_python"},
        "a Python function that returns torch Datasets; runs that code",
        argument="package.module:factory",
        needs="--trust-code",
        trust=True,
        options=None,
    ),
}


WORDS = {"classes": "classes", "persons": "persons with joints"}
"""What samples have, for messages; a plug-in's word stands for itself."""


@cache
def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in TABLE}


def entry_names() -> list[str]:
    """The names of all sources, those of installed plug-ins included; nothing is loaded."""
    return [*TABLE, *_plugins()]


@cache
def find_entry(name: str) -> Entry | None:
    """The row of a source, None where there is none; a plug-in cannot replace a row of ours.

    Raises:
        UserError: a plug-in that cannot be loaded.
    """
    if name in TABLE or name not in _plugins():
        return TABLE.get(name)
    target = _plugins()[name].value
    module, _, attribute = target.partition(":")
    try:
        entry = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data source '{name}' is listed as {target} but cannot be loaded: {error}") from error
    if not isinstance(entry, Entry):
        raise UserError(f"data source '{name}' is listed as {target}, which is no Entry")
    return entry


def entries() -> dict[str, Entry]:
    """Every row that can be loaded, by name."""
    rows: dict[str, Entry] = {}
    for name in entry_names():
        with suppress(UserError):  # whoever asks for that source by its name is told why
            if (entry := find_entry(name)) is not None:
                rows[name] = entry
    return rows


def source_names() -> list[str]:
    """The patterns of all sources, as typed: ``puppets``, ``imagefolder:DIR``, …"""
    return [_pattern(name, entry) for name, entry in entries().items()]


def _pattern(name: str, entry: Entry) -> str:
    return name if entry.argument is None else f"{name}:{entry.argument}"


def describe_sources() -> list[dict[str, str]]:
    """One row per source: ``name``, ``pattern``, ``summary``, ``needs``. Imports no torch."""
    return [
        {"name": name, "pattern": _pattern(name, entry), "summary": entry.summary, "needs": entry.needs}
        for name, entry in entries().items()
    ]


def kind_of(types: tuple[type, ...]) -> str:
    """What an option of these types is, in words."""
    return "text" if types == _TEXT else "a whole number" if types == (int,) else "a number"


def source_problem(text: str, reads: str, *, trust_code: bool, task: str = "") -> str | None:
    """Why ``text`` (``name`` or ``name:argument``) does not name a source whose samples have ``reads``, as a sentence
    about the place that says it; None where it does. ``task`` is who wants them."""
    if text == HANDED:
        return "stands for data that were handed over in Python; say where they lie, as in imagefolder:DIR"
    name, colon, argument = text.partition(":")
    try:
        entry = find_entry(name)
    except UserError as error:  # a plug-in that cannot be loaded
        return str(error)
    if entry is None:
        near = source_meant(text, entry_names())
        return f"there is no data source '{name}'{near}; there are {', '.join(source_names())}"
    if entry.argument is not None and not argument.strip():
        return f"lacks what follows the colon; write {_pattern(name, entry)}"
    if entry.argument is None and colon:
        return f"'{name}' takes nothing after it; write {name} (its settings go into data.options)"
    if entry.trust and not trust_code:
        return "runs code that is not part of classroomkd; if you trust it, add --trust-code"
    if reads not in entry.opens:
        able = ", ".join(other for other, row in entries().items() if reads in row.opens)
        have, wanted = (WORDS.get(word, word) for word in (next(iter(entry.opens)), reads))
        whom = f"for task: {task} " if task else ""
        return f"'{name}' has {have}, not {wanted}; {whom}there are {able}"
    return None


def option_problems(names: Iterable[str], options: Mapping[str, Any], reads: str) -> dict[str, str]:
    """What is wrong with ``data.options`` for the sources ``names``, as sentences by their keys."""
    names, table = list(names), entries()
    allowed = [table[name].options_for(reads) for name in names if name in table]
    if not allowed or None in allowed:
        return {}
    known: dict[str, tuple[type, ...]] = {}
    for row in allowed:
        for key, kinds in (row or {}).items():
            known[key] = tuple(dict.fromkeys((*known.get(key, ()), *kinds)))
    wrong = {}
    for key, value in options.items():
        if key not in known:
            there = f"; there are {', '.join(known)}" if known else f"; '{names[0]}' has none"
            wrong[key] = f"unknown option of '{names[0]}'{did_you_mean(key, known)}{there}"
        elif isinstance(value, bool) or not isinstance(value, known[key]):
            wrong[key] = f"must be {kind_of(known[key])}"
    return wrong


def open_source(text: str, request: Request) -> Any:
    """Open the source named by ``text`` (``name`` or ``name:argument``) for what the request reads: a ``Source``, or
    of persons a ``PersonSource``; a factory may also return a whole ``ImageSet``.

    Raises:
        UserError: what :func:`source_problem` and :func:`option_problems` say, and what the source finds wrong.
    """
    if sentence := source_problem(text, request.reads, trust_code=request.trust_code, task=request.task):
        raise UserError(f"data = {text!r}: {sentence}")
    name, _, argument = text.partition(":")
    options = request.options
    if wrong := option_problems([name], options, request.reads):
        raise UserError("\n".join(f"data.options.{key} = {options[key]!r}: {text}" for key, text in wrong.items()))
    entry = find_entry(name)
    assert entry is not None
    module, function = entry.opens[request.reads].split(":")
    return getattr(importlib.import_module(module), function)(argument, request)
