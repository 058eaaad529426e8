"""``data.labels: {file: FILE}``: a table of names and classes for pictures that lie in a folder without them.

A csv file has two columns, the picture's name and its class, with a header or without; with a header that names them
(``name``, ``file``, ``image`` or ``picture``; ``class`` or ``label``) there may be more. A json file is one object of
name: class. Names are relative to the folder, or base names that occur once in it. A picture that no line names, or
whose class is left empty, stays without a label.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from classroomkd.data.sources.base import Raw, Source, first_of
from classroomkd.data.sources.dataset_names import given_names
from classroomkd.data.sources.walking import is_image, shown
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError, did_you_mean

__all__ = ["with_labels"]

_WHERE = "data.labels.file"
_COLUMNS = ("name", "file", "filename", "image", "picture", "path"), ("class", "label")
_DELIMITERS = ",;\t"

Line = tuple[str, str, str]  # where it stands, the picture's name, its class


def with_labels(source: Source, file: str | os.PathLike[str], classes: object = None) -> Source:
    """The source of one lot of pictures, with the classes that ``file`` names.

    The labels do not enter the fingerprint, which is that of the pictures and of the names of the classes: what is
    stored of mentors' answers stays of use when more pictures are labelled.

    Args:
        source: without labels.
        file: the table.
        classes: the names of the classes, which may be more; None: those of the file, sorted.

    Raises:
        UserError: a source that has labels or names none of its pictures; a file that cannot be read, names no picture,
            names one that is not there or that two classes are said of, or a class that is not among ``classes``.
    """
    raw = source.parts.get("all")
    if raw is None or source.classes or not raw.names:
        raise UserError(
            f"{_WHERE}: is for pictures that have no labels, as those of images:DIR; '{source.name}' has some, or no"
            " names of pictures. Leave it out"
        )
    path = Path(file).expanduser()
    lines = [line for line in _lines(path) if line[2]]
    if not lines:
        raise UserError(f"{_WHERE}: {path} gives no picture a class; write a line NAME,CLASS for each")
    named = _by_place(lines, raw, source.name, path)
    known = given_names(classes, "data.classes") or tuple(sorted(set(named.values())))
    if extra := next((name for name in named.values() if name not in known), None):
        raise UserError(
            f"{_WHERE}: {path}: class '{extra}'{did_you_mean(extra, known)} is not among the {len(known)} of"
            f" data.classes ({first_of(known)})"
        )
    label = {name: number for number, name in enumerate(known)}
    target = [label[named[place]] if place in named else UNLABELLED for place in raw.places.tolist()]
    labelled = replace(raw, target=torch.tensor(target, dtype=torch.int64))
    mark = hashlib.sha256(f"{source.fingerprint} classes={'|'.join(known)}".encode()).hexdigest()
    return replace(source, classes=known, parts={"all": labelled}, fingerprint=mark)


def _by_place(lines: Sequence[Line], raw: Raw, folder: str, path: Path) -> dict[int, str]:
    """The class by the picture's place in its source."""
    places = {_text(name): place for place, name in enumerate(raw.names)}
    alone: dict[str, list[str]] = {}
    for path_there in places:
        alone.setdefault(path_there.rpartition("/")[2], []).append(path_there)
    found: dict[int, str] = {}
    unknown: list[str] = []
    for where, given, label in lines:
        name = next((name for name in _spellings(given, folder) if name in places), None)
        same = alone.get(_text(given), [])
        if name is None and len(same) > 1:
            raise UserError(
                f"{_WHERE}: {where}: '{given}' is the name of {len(same)} pictures ({first_of(same, 3)}); write which"
            )
        if name is None and not same:
            unknown.append(given)
            continue
        place = places[name if name is not None else same[0]]
        if found.setdefault(place, label) != label:
            raise UserError(f"{_WHERE}: {where}: '{given}' is {label} here and {found[place]} before; keep one of them")
    if unknown:
        near = did_you_mean(_text(unknown[0]), places)
        raise UserError(
            f"{_WHERE}: {path} names {len(unknown)} picture{'s' if len(unknown) > 1 else ''} that {folder} does not"
            f" have: {first_of(unknown, 3)}{near}. Names are relative to the folder; mend the lines or take them out"
        )
    return found


def _spellings(given: str, folder: str) -> Iterator[str]:
    """How a name may be meant: as it is, from where it lies, from the folder above, and as Windows writes it."""
    for text in dict.fromkeys((given, given.replace("\\", "/"))):
        name = _text(text).removeprefix("./")
        yield name
        yield name.removeprefix(f"{folder}/")


def _text(name: str) -> str:
    return unicodedata.normalize("NFC", shown(name.strip()))


def _lines(path: Path) -> list[Line]:
    """Every line that names a picture.

    Raises:
        UserError: it cannot be read, or is no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{_WHERE}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_WHERE}: {path} is no text in UTF-8 (byte {error.start})") from error
    if path.suffix.lower() == ".json":
        return _of_json(text, path)
    return _of_csv(text, path)


def _of_json(text: str, path: Path) -> list[Line]:
    try:
        pairs = json.loads(text or "[]", object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{_WHERE}: {path} is no JSON: {error}") from error
    lines: list[Line] = []
    for pair in pairs if isinstance(pairs, list) else [None]:
        name, label = pair if isinstance(pair, tuple) else (None, None)
        if name is None or isinstance(label, (bool, float, list)):
            raise UserError(f'{_WHERE}: {path} must be one object of names and classes, {{"1.jpg": "cat", …}}')
        lines.append((f"{path}", name, "" if label is None else _text(str(label))))
    return lines


def _of_csv(text: str, path: Path) -> list[Line]:
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"{_WHERE}: {path} is no csv file: {error}") from error
    name, label, widths = 0, 1, {2}
    if rows and not any(is_image(cell.strip()) for cell in rows[0]):
        header = [cell.strip().lower() for cell in rows.pop(0)]
        name, label = (next((header.index(w) for w in words if w in header), -1) for words in _COLUMNS)
        if min(name, label) < 0:
            name, label = 0, 1
        else:
            widths = {len(header)}
    lines: list[Line] = []
    for number, row in enumerate(rows, 1):
        if len(row) not in widths:
            columns = "1 column" if len(row) == 1 else f"{len(row)} columns"
            raise UserError(
                f"{_WHERE}: {path}: row {number} has {columns}; write NAME,CLASS, or a header with name and class"
            )
        lines.append((f"{path}, row {number}", row[name].strip(), _text(row[label])))
    return lines
