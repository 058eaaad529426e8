"""The table of data sources: readable without torch; a source's module is imported when it is opened."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.sources.base import Request

__all__ = ["PERSON_OPTIONS", "TABLE", "Entry", "describe_sources", "kind_of", "open_source", "source_names"]


@dataclass(frozen=True)
class Entry:
    """One source: ``target`` is ``module:function``; ``argument`` names what follows the colon, None when nothing does.

    ``options`` are the keys allowed in ``data.options`` with the types they take; None admits any (they go to a
    factory). ``pose`` is the function that gives persons with joints, None where there are none; ``target`` is None
    where there are no classes.
    """

    target: str | None
    summary: str
    argument: str | None = None
    needs: str = ""
    trust: bool = False
    options: Mapping[str, tuple[type, ...]] | None = field(default_factory=dict)
    pose: str | None = None

    def for_task(self, task: str) -> str | None:
        """The function that opens it for ``task``."""
        return self.pose if task == "pose" else self.target


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
        f"{_HERE}.puppets:open_puppets",
        "jointed figures in ten postures, drawn on the spot; for demos and tests",
        options={
            "train": (int,),
            "test": (int,),
            "hard": _NUMBER,
            "seed": (int,),
            "image_size": (int,),
            **PERSON_OPTIONS,
        },
        pose=f"{_HERE}.puppets:open_puppet_people",
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
    "coco-keypoints": Entry(
        None,
        "persons with joints, in COCO's format: DIR or a zip with annotations and images, or one annotation file",
        argument="DIR_OR_ZIP",
        options={"train": _TEXT, "val": _TEXT, "test": _TEXT, "images": _TEXT, "boxes": _TEXT, **PERSON_OPTIONS},
        pose=f"{_HERE}.coco_keypoints:open_coco",
    ),
    "mpii": Entry(
        None,
        "MPII Human Pose: DIR or a zip with annot/*.json and images",
        argument="DIR_OR_ZIP",
        options={"train": _TEXT, "val": _TEXT, "test": _TEXT, "images": _TEXT, "base": (int,), **PERSON_OPTIONS},
        pose=f"{_HERE}.mpii:open_mpii",
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


def kind_of(types: tuple[type, ...]) -> str:
    """What an option of these types is, in words."""
    return "text" if types == _TEXT else "a whole number" if types == (int,) else "a number"


def _check_options(name: str, entry: Entry, options: Mapping[str, Any], task: str) -> None:
    if entry.options is None:
        return
    wrong = []
    left_out = PERSON_OPTIONS if entry.pose is not None and task != "pose" else {}
    known = {key: types for key, types in entry.options.items() if key not in left_out}
    for key, value in options.items():
        if key not in known:
            there = f"; there are {', '.join(known)}" if known else f"; '{name}' has no options"
            wrong.append(f"data.options.{key}: unknown option of '{name}'{did_you_mean(key, known)}{there}")
        elif isinstance(value, bool) or not isinstance(value, known[key]):
            wrong.append(f"data.options.{key}: {value!r} does not fit; give {kind_of(known[key])}")
    if wrong:
        raise UserError("\n".join(wrong))


def open_source(text: str, request: Request) -> Any:
    """Open the source named by ``text`` (``name`` or ``name:argument``) for the request's task: a ``Source``, or for
    pose a ``PersonSource``; a factory may also return a whole ``ImageSet``.

    Raises:
        UserError: for unknown names, a missing argument, a task it does not serve, unknown options, code that is not
        trusted, and what the source finds wrong.
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
    target = entry.for_task(request.task)
    if target is None:
        able = ", ".join(other for other, row in TABLE.items() if row.for_task(request.task) is not None)
        have = "persons with joints, not classes" if entry.target is None else "classes, not persons with joints"
        raise UserError(f"data: '{name}' has {have}; for task: {request.task} there are {able}")
    _check_options(name, entry, request.options, request.task)
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(argument, request)
