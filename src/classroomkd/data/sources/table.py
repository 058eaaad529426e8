"""The table of data sources: readable without torch; a source's module is imported when it is opened."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.sources.base import Request, Source

__all__ = ["TABLE", "Entry", "describe_sources", "open_source", "source_names"]


@dataclass(frozen=True)
class Entry:
    """One source: ``target`` is ``module:function``; ``argument`` names what follows the colon, None when nothing does.

    ``options`` are the keys allowed in ``data.options`` with the types they take; None admits any (they go to a
    factory).
    """

    target: str
    summary: str
    argument: str | None = None
    needs: str = ""
    trust: bool = False
    options: Mapping[str, tuple[type, ...]] | None = field(default_factory=dict)


_HERE = "classroomkd.data.sources"
_NUMBER = (int, float)

TABLE: dict[str, Entry] = {
    "puppets": Entry(
        f"{_HERE}.puppets:open_puppets",
        "jointed figures in ten postures, drawn on the spot; for demos and tests",
        options={"train": (int,), "test": (int,), "hard": _NUMBER, "seed": (int,), "image_size": (int,)},
    ),
    "digits": Entry(
        f"{_HERE}.digits:open_digits",
        "1,797 handwritten digits of 8x8 pixels that come with scikit-learn",
        needs='pip install "classroomkd[digits]"',
    ),
    "fashion-mnist": Entry(
        f"{_HERE}.fashion_mnist:open_fashion_mnist",
        "70,000 pieces of clothing of 28x28 pixels: the authors' idx files, gzipped or not",
        argument="DIR",
    ),
    "cifar10": Entry(
        f"{_HERE}.cifar:open_cifar10",
        "60,000 photographs of 32x32 pixels in 10 classes: official binary or python archive",
        argument="DIR",
        options={"classes": (int,)},
    ),
    "cifar100": Entry(
        f"{_HERE}.cifar:open_cifar100",
        "60,000 photographs of 32x32 pixels in 100 classes: official binary or python archive, or WebP strips in zips",
        argument="DIR",
        options={"classes": (int,)},
    ),
    "imagefolder": Entry(
        f"{_HERE}.imagefolder:open_imagefolder",
        "your own images: DIR/class/*.jpg, or DIR/train, DIR/val and DIR/test of that kind",
        argument="DIR",
        options={"memory_gib": _NUMBER},
    ),
    "py": Entry(
        f"{_HERE}.python:open_python",
        "a Python function that returns torch Datasets; runs that code",
        argument="package.module:factory",
        needs="--trust-code",
        trust=True,
        options=None,
    ),
}


def source_names() -> list[str]:
    """The patterns of all sources, as typed: ``puppets``, ``imagefolder:DIR``, …"""
    return [_pattern(name, entry) for name, entry in TABLE.items()]


def _pattern(name: str, entry: Entry) -> str:
    return name if entry.argument is None else f"{name}:{entry.argument}"


def describe_sources() -> list[dict[str, str]]:
    """One row per source: ``name``, ``pattern``, ``summary``, ``needs``. Imports no torch."""
    return [
        {"name": name, "pattern": _pattern(name, entry), "summary": entry.summary, "needs": entry.needs}
        for name, entry in TABLE.items()
    ]


def _check_options(name: str, entry: Entry, options: Mapping[str, Any]) -> None:
    if entry.options is None:
        return
    wrong = []
    for key, value in options.items():
        if key not in entry.options:
            there = f"; there are {', '.join(entry.options)}" if entry.options else f"; '{name}' has no options"
            wrong.append(f"data.options.{key}: unknown option of '{name}'{did_you_mean(key, entry.options)}{there}")
        elif isinstance(value, bool) or not isinstance(value, entry.options[key]):
            kind = "a whole number" if entry.options[key] == (int,) else "a number"
            wrong.append(f"data.options.{key}: {value!r} does not fit; give {kind}")
    if wrong:
        raise UserError("\n".join(wrong))


def open_source(text: str, request: Request) -> Source:
    """Open the source named by ``text`` (``name`` or ``name:argument``).

    Raises:
        UserError: for unknown names, a missing argument, unknown options, code that is not trusted, and what the
        source finds wrong.
    """
    name, colon, argument = text.partition(":")
    entry = TABLE.get(name)
    if entry is None:
        raise UserError(
            f"data: there is no source '{name}'{did_you_mean(name, TABLE)}; there are {', '.join(source_names())}"
        )
    if entry.argument is not None and not argument.strip():
        raise UserError(f"data: '{text}' lacks what follows the colon; write {_pattern(name, entry)}")
    if entry.argument is None and colon:
        raise UserError(f"data: '{name}' takes nothing after it; write {name} (settings go into data.options)")
    if entry.trust and not request.trust_code:
        raise UserError(f"data: '{text}' runs code of yours; say so with --trust-code (in Python: trust_code=True)")
    _check_options(name, entry, request.options)
    module, function = entry.target.split(":")
    source: Source = getattr(importlib.import_module(module), function)(argument, request)
    return source
