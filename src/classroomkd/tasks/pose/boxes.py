"""Whom ``classroomkd predict`` looks at: a whole image as one person, or boxes from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classroomkd.data import decode
from classroomkd.data.keypoints.coco import read_coco
from classroomkd.data.keypoints.coco_entries import whole_id
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.people import Floats, Picture
from classroomkd.data.keypoints.placing import Placed, locate
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError

__all__ = ["Boxes", "boxes_in", "whole_images"]


@dataclass(frozen=True, eq=False)
class Boxes:
    """n persons to look at.

    Attributes:
        where: what messages call it.
        store: reads the pictures.
        pictures: there may be some without a box.
        picture: (n,) places in ``pictures``.
        box: (n, 4): x, y, width, height, image pixels.
        score: (n,).
        detected: whether a detector's, of which several may be of one person.
        category: id that answers are written with.
        skipped: what was left out, and why.
    """

    where: str
    store: Files
    pictures: tuple[Picture, ...]
    picture: NDArray[np.int64]
    box: Floats
    score: Floats
    detected: bool = False
    category: int = 1
    skipped: list[str] = field(default_factory=list)


def whole_images(files: Sequence[Path], root: Path, category: int = 1) -> Boxes:
    """Every image below the folder ``root`` as one person who fills it."""
    pictures, skipped, store = [], [], Files(root)
    for name, number in _numbered(files, root).items():
        try:
            pictures.append(Picture(number, name, *store.size(name)))
        except decode.DecodeError as error:
            skipped.append(f"{root / name}: {error}")
    box = np.array([[0, 0, p.width, p.height] for p in pictures], np.float64).reshape(-1, 4)
    every = np.arange(len(pictures))
    score = np.ones(len(pictures))
    return Boxes("images", Files(root), tuple(pictures), every, box, score, category=category, skipped=skipped)


def boxes_in(path: Path, files: Sequence[Path], root: Path, skeleton: Skeleton, category: int = 1) -> Boxes:
    """The boxes of a file: COCO annotations, or a list of ``image_id`` or ``file_name``, ``bbox`` and maybe ``score``.

    Of annotations, crowds are left out, and persons whose joints are all without a label, as in evaluation; where
    nobody has a label, all are looked at, and so is who has no ``keypoints``. Images are found by their name, or by the
    number they are called by (``000000439180.jpg`` is image 439180).

    Args:
        path: of the file.
        files: the images.
        root: the folder they are in.
        skeleton: what the student finds.
        category: the id of its persons. Of a list, boxes of other categories are left out (0 is taken for persons where
            there is no other: detectors that count from 0).

    Raises:
        UserError: no such file, not of that form, or boxes of other images.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--boxes {path}: {error.strerror or error}") from error
    try:
        read = json.loads(content)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"--boxes {path} is no whole JSON ({error}); write it again") from error
    if isinstance(read, Mapping):
        return _annotated(content, path, files, root, skeleton)
    if not isinstance(read, list) or not all(isinstance(entry, Mapping) for entry in read):
        raise UserError(f"--boxes {path}: neither COCO annotations nor a list of boxes [{{image_id, bbox, score}}]")
    return _listed(read, path, files, root, category)


def _annotated(content: bytes, path: Path, files: Sequence[Path], root: Path, skeleton: Skeleton) -> Boxes:
    notes: list[str] = []
    store, known = Files(root), _Names(files, root)

    def place(written: Sequence[str]) -> Placed:
        return Placed(store, locate(set(known.names), written))

    file = read_coco(content, store, path.name, notes, skeleton=skeleton, place=place)
    people, pictures = file.listing.persons, file.listing.pictures
    usable = ~people.crowd & ((people.joints[..., 2] > 0).any(1) | file.unsaid)
    usable = usable if usable.any() else ~people.crowd
    usable = usable if usable.any() else np.ones(len(people), bool)
    if (~usable).any():
        notes.append(f"{path.name}: {int((~usable).sum())} crowds and persons without a labelled joint")
    there = set(known.names)
    missing = np.array([pictures[row].file not in there for row in people.picture], bool) & usable
    _tell_missing(path, [pictures[int(row)].file for row in people.picture[missing]], int(usable.sum()), root, notes)
    rows = np.flatnonzero(usable & ~missing)
    notes += _without(known, [pictures[int(row)].file for row in people.picture[rows]], path)
    return Boxes(
        path.name, store, pictures, people.picture[rows], people.box[rows], np.ones(len(rows)),
        category=file.category, skipped=notes,
    )  # fmt: skip


def _listed(read: list[Any], path: Path, files: Sequence[Path], root: Path, category: int) -> Boxes:
    notes: list[str] = []
    store, known, numbers = Files(root), _Names(files, root), _numbered(files, root)
    kinds = [category if (kind := entry.get("category_id")) is None else whole_id(kind) for entry in read]
    mine = 0 if set(kinds) == {0} else category
    persons = [entry for entry, kind in zip(read, kinds, strict=True) if kind == mine]
    if len(persons) < len(read):
        notes.append(f"{path.name}: {len(read) - len(persons)} boxes of categories other than {mine} (persons)")
    pictures: dict[str, Picture] = {}
    names: list[str] = []
    boxes: list[list[float]] = []
    scores: list[float] = []
    missing: list[str] = []
    broken: dict[str, str] = {}
    for place, entry in enumerate(persons):
        box, score = _numbers(entry, f"--boxes {path}: box {place} (from 0)")
        file, own = entry.get("file_name"), entry.get("image_id")
        name = known.find(str(file)) if file is not None else known.called(own)
        if name is None:
            missing.append(str(own if file is None else file))
            continue
        if name not in pictures and name not in broken:
            try:
                number = numbers[name] if (given := whole_id(own)) is None else given
                pictures[name] = Picture(number, name, *store.size(name))
            except decode.DecodeError as error:
                broken[name] = f"{root / name}: {error}"
        if name in pictures:
            names.append(name)
            boxes.append(box)
            scores.append(score)
    _tell_missing(path, missing, len(persons), root, notes)
    if len({picture.id for picture in pictures.values()}) < len(pictures):
        raise UserError(f"--boxes {path}: two images have the same image_id; give each its own")
    notes += [*broken.values(), *_without(known, [*pictures, *broken], path)]
    place_of = {name: place for place, name in enumerate(pictures)}
    return Boxes(
        path.name, store, tuple(pictures.values()), np.array([place_of[name] for name in names], np.int64),
        np.array(boxes, np.float64).reshape(-1, 4), np.array(scores), detected=True, category=category,
        skipped=notes,
    )  # fmt: skip


def _numbers(entry: Mapping[str, Any], where: str) -> tuple[list[float], float]:
    """Box and score of an entry.

    Raises:
        UserError: what it lacks.
    """
    box, score = entry.get("bbox"), entry.get("score", 1.0)
    if entry.get("image_id") is None and entry.get("file_name") is None:
        raise UserError(f"{where} has neither image_id nor file_name; it needs one of them")
    fits = isinstance(box, list) and len(box) == 4
    numbers = [*box, score] if isinstance(box, list) else []
    if not fits or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers):
        raise UserError(
            f"{where} needs bbox [x, y, width, height] and a number as score, has {box!r:.60}, {score!r:.20}"
        )
    if not math.isfinite(score):
        raise UserError(f"{where} has a score that is not a finite number")
    return [float(v) for v in numbers[:4]], float(score)


def _numbered(files: Sequence[Path], root: Path) -> dict[str, int]:
    """Names below ``root`` and their image ids: the numbers they are called by where all are different numbers, else
    1, 2, …"""
    names = [file.relative_to(root).as_posix() for file in files]
    stems = [file.stem for file in files]
    numeric = all(stem.isascii() and stem.isdigit() for stem in stems) and len({int(s) for s in stems}) == len(stems)
    return {name: int(stem) if numeric else row for row, (name, stem) in enumerate(zip(names, stems, strict=True), 1)}


class _Names:
    """The images there are, found by what a file of boxes calls them."""

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self.names = [file.relative_to(root).as_posix() for file in files]
        self._by_name: dict[str, list[str]] = {}
        self._by_number: dict[int, list[str]] = {}
        for file, name in zip(files, self.names, strict=True):
            self._by_name.setdefault(file.name, []).append(name)
            if file.stem.isascii() and file.stem.isdigit():
                self._by_number.setdefault(int(file.stem), []).append(name)
        self._there = set(self.names)

    def find(self, name: str) -> str | None:
        """By its path below the folder, by the end of that path, or by its name alone where only one is called so."""
        name = name.replace("\\", "/").removeprefix("./")
        if name in self._there:
            return name
        same = self._by_name.get(PurePosixPath(name).name, [])
        ends = [other for other in same if name.endswith(f"/{other}")]
        same = [max(ends, key=len)] if ends else same
        return same[0] if len(same) == 1 else None

    def called(self, number: Any) -> str | None:
        """By the number it is called by, or by its name, with or without its ending."""
        if (whole := whole_id(number)) is not None:
            same = self._by_number.get(whole, [])
        else:
            name = str(number)
            same = [found] if (found := self.find(name)) is not None else []
            same = same or [other for other in self.names if PurePosixPath(other).stem == name]
        return same[0] if len(same) == 1 else None


def _tell_missing(path: Path, missing: list[str], total: int, root: Path, notes: list[str]) -> None:
    different = list(dict.fromkeys(missing))
    shown = ", ".join(different[:3]) + (", …" if len(different) > 3 else "")
    if total and len(missing) == total:
        raise UserError(f"--boxes {path}: none of its images ({shown}) is in {root}; give the boxes of these images")
    if missing:
        notes.append(f"{path.name}: {len(missing)} boxes of {len(different)} images that are not in {root} ({shown})")


def _without(known: _Names, names: Sequence[str], path: Path) -> list[str]:
    """A note on the images that nobody has a box in."""
    alone = sorted(set(known.names) - set(names))
    shown = ", ".join(alone[:3]) + (", …" if len(alone) > 3 else "")
    return [f"{len(alone)} images without a box in {path.name} ({shown})"] if alone else []
