"""Where data come in several pieces: classes meet by their names, shapes must be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.sources.dataset_names import by_name, given_names
from classroomkd.data.targets import CLASS
from classroomkd.errors import UserError

__all__ = ["more", "named", "one_source"]


def one_source(opened: Mapping[str, Source]) -> Source:
    """One source out of several, by the part that each is to be; ``train`` is among them.

    Pictures without labels have no classes of their own, and meet those of the others.

    Raises:
        UserError: their classes or the shapes of their images differ.
    """
    train = opened["train"]
    first = next((part for part, source in opened.items() if source.classes), "train")
    classes = opened[first].classes
    parts: dict[str, Raw] = {}
    for part, source in opened.items():
        if source.classes and sorted(source.classes) != sorted(classes):
            difference = _difference(classes, source.classes, first)
            raise UserError(f"data.{part}: {difference}. Both must have the same classes")
        raw = source.parts.get(part) or source.parts.get("all") or source.parts["train"]
        parts[part] = _in_order(raw, source.classes or classes, classes, f"data.{part}")
        if parts[part].pixels.shape != parts["train"].pixels.shape:
            raise UserError(
                f"data.{part}: images are {_shape(parts[part])}, those of data.train are {_shape(parts['train'])};"
                " set data.size to one size for both"
            )
    # `train: cifar100:DIR, val: …` still tests on CIFAR's own test part.
    for part in ("val", "test"):
        if part not in parts and part in train.parts:
            parts[part] = train.parts[part]
    names = [source.name for source in opened.values()]
    name = train.name if len(set(names)) == 1 else " + ".join(names)
    whole = hashlib.sha256(" ".join(f"{part}={source.fingerprint}" for part, source in opened.items()).encode())
    notes = tuple(dict.fromkeys(note for source in opened.values() for note in source.notes))
    return Source(name, classes, parts, train.views, whole.hexdigest(), notes)


def _shape(raw: Raw) -> str:
    return "x".join(str(side) for side in raw.pixels.shape)


def _difference(classes: tuple[str, ...], other: tuple[str, ...], whose: str) -> str:
    extra = [name for name in other if name not in classes]
    absent = [name for name in classes if name not in other]
    if extra:
        return f"class '{extra[0]}' is not among the {len(classes)} classes of data.{whose}" + more(extra)
    return f"class '{absent[0]}' of data.{whose} is missing" + more(absent)


def _in_order(raw: Raw, own: tuple[str, ...], names: tuple[str, ...], where: str) -> Raw:
    """The part with targets that count through ``names``, which are its ``own`` in another order."""
    if raw.kind != CLASS or own == names:
        return raw
    return replace(raw, target=by_name(raw.target, own, names, where))


def named(source: Source, given: Any) -> Source:
    """The source with the names of classes that the user gave: its own in another order, or new ones; all of them where
    its pictures have no labels.

    Raises:
        UserError: not as many as there are, or no names.
    """
    names = given_names(given, "data.classes")
    if names is None or names == source.classes:
        return source
    if not source.classes:
        return replace(source, classes=names)
    if len(names) != len(source.classes):
        raise UserError(f"data.classes: {len(names)} names for {len(source.classes)} classes of '{source.name}'")
    if sorted(names) != sorted(source.classes):
        return replace(source, classes=names)
    parts = {part: _in_order(raw, source.classes, names, f"data.{part}") for part, raw in source.parts.items()}
    mark = hashlib.sha256(f"{source.fingerprint} in the order {'|'.join(names)}".encode()).hexdigest()
    return replace(source, classes=names, parts=parts, fingerprint=mark)


def more(names: list[str]) -> str:
    """How many there are after the first name, for a message; nothing for none."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
