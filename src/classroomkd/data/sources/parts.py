"""Which folders of a data set are its parts (train, val, test) and which are classes.

A part is known by its name, in any case and spelling: ``train``, ``Training``, ``train_set``, ``valid``, ``dev``,
``TEST``. Folders that look like parts and cannot be told are an error: as classes they would train without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

from classroomkd.data.sources.base import Folder, first_of
from classroomkd.data.sources.walking import class_name, folders_in, folders_seen_in, images_in, look_through, shown
from classroomkd.data.spec import PARTS
from classroomkd.errors import UserError

__all__ = ["part_folders", "part_of"]

_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLERS = frozenset({
    "data", "dataset", "folder", "image", "images", "img", "imgs", "part", "photos", "pictures", "samples", "set",
    "split", "subset",
})  # fmt: skip


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where a folder's name says so, else None."""
    words = _words(name)
    parts = [_WORDS[word] for word in words if word in _WORDS]
    return parts[0] if len(parts) == 1 and all(word in _WORDS or word in _FILLERS for word in words) else None


def _like(name: str) -> set[str]:
    """The parts that words of a name speak of, also in a language or a compound that is not understood."""
    starts = (re.match("train|valid|test", word) for word in _words(name))
    known = {_WORDS[word] for word in _words(name) if word in _WORDS}
    return known | {_WORDS[start[0]] for start in starts if start}


def _words(name: str) -> list[str]:
    """The words of a name; ``trainSet``, ``train_set``, ``trainset`` and ``train2017`` are ``train`` (and ``set``)."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", class_name(name)))
    return [_without_filler(word.lower()) for word in words]


def _without_filler(word: str) -> str:
    if word in _WORDS:
        return word
    shorter = {word.removesuffix(filler) for filler in _FILLERS} | {word.removeprefix(filler) for filler in _FILLERS}
    return next((part for part in sorted(shorter) if part in _WORDS), word)


def part_folders(folder: Folder, notes: list[str]) -> dict[str, Path]:
    """{"all": DIR}, or the part folders where DIR holds a part for training and nothing else that has images.

    Raises:
        UserError: folders that look like parts and cannot be told.
    """
    inner = folders_in(folder.path)
    like = [entry for entry in inner if _like(entry.name) and folders_seen_in(entry)]
    training = [entry for entry in like if part_of(entry.name) == "train"]
    if not training:
        _check_no_parts(folder, inner, like)
        _say_classes(inner, notes)
        return {"all": folder.path}
    others = [entry for entry in inner if part_of(entry.name) is None]
    strangers = [entry for entry in others if look_through(entry).images]
    if strangers:
        raise _unclear(folder, training[0], strangers)
    if others:
        names = first_of([shown(entry.name) + "/" for entry in others])
        notes.append(f"{names} beside {shown(training[0].name)}/ has no images and was left out")
    return _by_part(folder, inner)


def _by_part(folder: Folder, inner: list[Path]) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for entry in inner:
        part = part_of(entry.name)
        if part is None:
            continue
        if part in places:
            raise UserError(
                f"data: imagefolder:{shown(folder.path)} holds both {shown(places[part].name)}/ and"
                f" {shown(entry.name)}/; keep one of them"
            )
        places[part] = entry
    return {part: places[part] for part in PARTS if part in places}


def _kinds(place: Path) -> set[str]:
    return {class_name(kind.name) for kind in folders_seen_in(place)}


def _check_no_parts(folder: Folder, inner: list[Path], like: list[Path]) -> None:
    """Without a part for training, folders that look like parts, by name and content, are an error."""
    inside = {entry: _kinds(entry) for entry in inner} if like else {}
    for entry in like:
        for other in inner:
            apart = _like(other.name) - _like(entry.name) if other in like else set()
            alike = bool(inside[other] & inside[entry]) and (other in like or part_of(entry.name) is not None)
            if other != entry and (apart or alike):
                first, second = sorted((entry, other), key=lambda each: "train" not in _like(each.name))
                raise UserError(
                    f"data: imagefolder:{shown(folder.path)}: {shown(entry.name)}/ and {shown(other.name)}/ look like"
                    f" parts of a data set ({shown(entry.name)}/ holds {first_of(sorted(inside[entry]), 3)};"
                    f" {shown(other.name)}/ {first_of(sorted(inside[other]), 3)}), and no name is understood as the"
                    " part for training. Name them train, val and test, with a folder per class in each, or say which"
                    f" is which: {_parts_apart(folder, first, second)}"
                )


def _parts_apart(folder: Folder, train: Path, test: Path) -> str:
    root = shown(folder.path)
    return f"data: {{train: imagefolder:{root}/{shown(train.name)}, test: imagefolder:{root}/{shown(test.name)}}}"


def _unclear(folder: Folder, train: Path, strangers: list[Path]) -> UserError:
    names = first_of([shown(entry.name) + "/" for entry in strangers])
    return UserError(
        f"data: imagefolder:{shown(folder.path)} holds {shown(train.name)}/ with a folder per class, and {names} beside"
        " it, with images, which is no part that is known (train, val, test). Move it elsewhere, or name the parts:"
        f" data: {{train: imagefolder:{shown(train)}, test: imagefolder:DIR}}. If {shown(train.name)} is a class, put"
        " its images into it directly"
    )


def _say_classes(inner: list[Path], notes: list[str]) -> None:
    """Notes on folders that are taken as classes and could be meant otherwise."""
    named = [shown(entry.name) for entry in inner if part_of(entry.name) is not None]
    if len(named) > 1 and len(named) == len(inner) and any(images_in(entry) for entry in inner):
        notes.append(f"{' and '.join(named)} are taken as classes: they hold images, and no folder per class")
    common = _kinds(inner[0]) if len(inner) > 1 else set()
    for entry in inner[1:]:
        if not common:
            return
        common &= _kinds(entry)
    if len(common) > 1:
        listed = first_of(sorted(common), 3)
        notes.append(
            f"the folders {first_of([shown(entry.name) for entry in inner], 3)} are the classes, and each holds the"
            f" folders {listed}; if those are the classes, name the outer ones train, val and test"
        )
