"""Source ``imagefolder:DIR``: your own images, one folder per class.

``DIR/class/*.jpg`` is one part, to be split by ``load``. ``DIR/train/class/…`` with ``DIR/val`` (or ``valid``,
``validation``) and ``DIR/test`` beside it are taken as they are; with train and val only, val is what the final score
is measured on (as everybody does with ImageNet) and a validation part is split off train. Class names are the
folders' names, sorted; files are listed recursively, in sorted order, and a file's place in that list is its id.

Images are decoded once into memory when they fit ``options.memory_gib`` (2), else whenever they are needed.
"""

from __future__ import annotations

from pathlib import Path

from classroomkd.data.decode import ENDINGS
from classroomkd.data.sources import imagefiles
from classroomkd.data.sources.base import Folder, Request, Source
from classroomkd.errors import UserError

__all__ = ["open_imagefolder"]

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Listing = dict[str, list[str]]  # the images of one part by class, relative to the folder that was named


def open_imagefolder(argument: str, request: Request) -> Source:
    """See the module's text; ``request.unreadable`` says what becomes of files that are no images."""
    folder = Folder(argument, "imagefolder")
    if not folder.path.is_dir():
        raise UserError(f"data: imagefolder:{argument} is a file; give the folder that holds one folder per class")
    notes: list[str] = []
    places = _part_folders(folder)
    others: list[str] = []
    listings = {part: _list(folder, place, others) for part, place in places.items()}
    first = next(iter(listings))
    classes = _without_empty(listings[first], places[first], request, notes)
    for part, listing in listings.items():
        _check_classes(classes, listing, places[part])
    if others:
        notes.append(f"{len(others)} files are no images by their name and were left out, e.g. {others[0]}")
    if "test" not in listings and "val" in listings:
        # Nobody's ImageNet score is measured on a piece of train.
        listings["test"] = listings.pop("val")
        notes.append(
            f"{places['val'].name}/ is used as the test part (there is no test/); a validation part is split off train/"
        )
    files = {
        part: [(file, label) for label, name in enumerate(classes) for file in listing.get(name, ())]
        for part, listing in listings.items()
    }
    return imagefiles.read(folder.path, files, classes, request, notes)


def _visible(path: Path) -> list[Path]:
    folders = (entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(folders, key=lambda folder: folder.name)


def _part_folders(folder: Folder) -> dict[str, Path]:
    """{"all": DIR}, or the part folders when DIR holds nothing else and train holds class folders."""
    inner = _visible(folder.path)
    if "train" not in {entry.name for entry in inner} or any(entry.name not in _PARTS for entry in inner):
        return {"all": folder.path}
    if not _visible(folder.path / "train"):
        return {"all": folder.path}
    places: dict[str, Path] = {}
    for entry in inner:
        part = _PARTS[entry.name]
        if part in places:
            raise UserError(
                f"data: imagefolder:{folder.path} holds both {places[part].name}/ and {entry.name}/; keep one of them"
            )
        places[part] = entry
    return {part: places[part] for part in ("train", "val", "test") if part in places}


def _list(folder: Folder, place: Path, others: list[str]) -> Listing:
    """The images of one part; files that are none by their name go to ``others``."""
    kinds = _visible(place)
    if not kinds:
        loose = [entry.name for entry in place.iterdir() if entry.suffix.lower() in ENDINGS]
        content = f"{len(loose)} images that lie in it directly" if loose else Folder.inside(place)
        raise UserError(
            f"data: imagefolder:{place}: looked for one folder per class (such as {place.name}/cat/1.jpg);"
            f" found {content}. Put the images of each class into a folder with the class's name"
        )
    listing: Listing = {kind.name: [] for kind in kinds}
    for kind in kinds:
        for path in sorted(kind.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                names = listing[kind.name] if path.suffix.lower() in ENDINGS else others
                names.append(path.relative_to(folder.path).as_posix())
    return listing


def _without_empty(listing: Listing, place: Path, request: Request, notes: list[str]) -> tuple[str, ...]:
    empty = [name for name, files in listing.items() if not files]
    if empty:
        where = ", ".join(str(place / name) for name in empty[:5])
        if request.unreadable != "skip":
            raise UserError(
                f"data: no images in {where}: an empty class cannot be learned. Add images, remove the folder, or set"
                " data.unreadable: skip to leave such classes out"
            )
        notes.append(f"empty class folders were left out: {', '.join(empty)}")
    return tuple(name for name in listing if name not in empty)


def _check_classes(classes: tuple[str, ...], listing: Listing, place: Path) -> None:
    extra = [name for name, files in listing.items() if files and name not in classes]
    if extra:
        raise UserError(
            f"data: {place / extra[0]} is a class that the train folder lacks; both must have the same class folders"
            + (f" (and {len(extra) - 1} more)" if len(extra) > 1 else "")
        )
