"""The images of a part by class: one folder per class, at any depth below it."""

from __future__ import annotations

from pathlib import Path

from classroomkd.data.sources.base import Folder, Request, first_of
from classroomkd.data.sources.parts import part_of
from classroomkd.data.sources.walking import (
    Found,
    broken_links_in,
    class_name,
    folders_in,
    folders_seen_in,
    images_in,
    look_through,
    shown,
)
from classroomkd.errors import UserError, did_you_mean

__all__ = ["Listing", "check_classes", "list_classes", "report_left", "without_empty"]

Listing = dict[str, list[str]]
"""The images of one part by class, relative to the folder that was named."""


def list_classes(folder: Folder, place: Path, left: Found, known: Listing | None) -> Listing:
    """The images of one part by class. What is left out goes to ``left``: images beside the class folders, files that
    are none by their name, what cannot be read. ``known`` has the classes for training, when this is another part."""
    kinds, loose = folders_in(place), images_in(place)
    if not kinds:
        content = f"{len(loose)} images that lie in it directly" if loose else Folder.inside(place)
        without = f"; pictures without labels are images:{shown(place)}" if loose else ""
        raise UserError(
            f"data: imagefolder:{shown(place)}: looked for one folder per class (such as"
            f" {shown(place.name)}/cat/1.jpg); found {content}. Put the images of each class into a folder with the"
            f" class's name{without}"
        )
    if len(kinds) == 1 and not loose and class_name(kinds[0].name) not in (known or ()):
        _check_not_one_deeper(folder, place, kinds[0])
    listing: Listing = {}
    for kind in sorted(kinds, key=lambda kind: class_name(kind.name)):
        name = class_name(kind.name)
        if name in listing:
            raise UserError(
                f"data: imagefolder:{shown(place)} holds two folders whose names are the same as text, '{name}'; rename"
                " one of them"
            )
        found = look_through(kind)
        listing[name] = [path.relative_to(folder.path).as_posix() for path in found.images]
        left.others += found.others
        left.lost.update(found.lost)
    left.images += loose
    left.lost.update(broken_links_in(place))
    return listing


def _check_not_one_deeper(folder: Folder, place: Path, only: Path) -> None:
    """An archive often holds one folder more than is meant: DIR/dataset/train/…, or DIR/dataset/cat/…"""
    inside = folders_seen_in(only)
    if not inside or images_in(only):
        return
    part = part_of(place.name) if place != folder.path else None
    remedy = f"imagefolder:{shown(only)}" if part is None else f"data: {{{part}: imagefolder:{shown(only)}, …}}"
    raise UserError(
        f"data: imagefolder:{shown(place)} holds one folder, {shown(only.name)}/, and what looks like the data is in it"
        f" ({first_of([shown(entry.name) + '/' for entry in inside], 4)}). Write {remedy}"
    )


def report_left(folder: Folder, left: Found, request: Request, notes: list[str]) -> None:
    """Say what was left out.

    Raises:
        UserError: folders and links that cannot be read, where they are to be refused.
    """
    if left.lost:
        names = first_of([f"{shown(path)} ({why})" for path, why in sorted(left.lost.items())], 3)
        if request.unreadable == "refuse":
            raise UserError(f"data: cannot be read: {names}. Mend or remove them, or set data.unreadable: skip")
        notes.append(f"left out, because they cannot be read: {names}")
    for paths, what in (
        (left.images, "images lie beside the class folders, not in one,"),
        (left.others, "files are no images by their name"),
    ):
        if paths:
            example = shown(paths[0].relative_to(folder.path).as_posix())
            notes.append(f"{len(paths)} {what} and were left out, e.g. {example}")


def without_empty(listing: Listing, place: Path, request: Request, notes: list[str]) -> tuple[str, ...]:
    """The classes that have images.

    Raises:
        UserError: for empty class folders, where they are to be refused.
    """
    empty = [name for name, files in listing.items() if not files]
    if empty:
        where = ", ".join(f"{shown(place)}/{name}" for name in empty[:5])
        if request.unreadable != "skip":
            raise UserError(
                f"data: no images in {where}: an empty class cannot be learned. Add images, remove the folder, or set"
                " data.unreadable: skip to leave such classes out"
            )
        notes.append(f"empty class folders were left out: {', '.join(empty)}")
    return tuple(name for name in listing if name not in empty)


def check_classes(classes: tuple[str, ...], listing: Listing, place: Path, notes: list[str]) -> None:
    """Classes meet by name: a part may lack one, with a note, and have none that training lacks."""
    extra = [name for name, files in listing.items() if files and name not in classes]
    if extra:
        raise UserError(
            f"data: {shown(place)}/{extra[0]} is a class that the train folder lacks{did_you_mean(extra[0], classes)};"
            " both must have the same class folders" + (f" (and {len(extra) - 1} more)" if len(extra) > 1 else "")
        )
    absent = [name for name in classes if not listing.get(name)]
    if absent:
        notes.append(f"{shown(place.name)}/ has no images of {first_of(absent)}")
