"""Source ``imagefolder:DIR``: your own images, one folder per class.

``DIR/class/*.jpg`` is one part, to be split by ``load``. ``DIR/train/class/…`` with ``DIR/val`` and ``DIR/test`` beside
it (in any usual spelling, see ``parts``) are taken as they are; with train and val only, val is what the final score is
measured on (as everybody does with ImageNet) and a validation part is split off train. Class names are the folders'
names, sorted; files are listed recursively, in sorted order, and a file's place in that list is its id.

How they are read: ``reading``.
"""

from __future__ import annotations

from classroomkd.data.sources.base import Folder, Request, Source
from classroomkd.data.sources.class_folders import Listing, check_classes, list_classes, report_left, without_empty
from classroomkd.data.sources.parts import part_folders
from classroomkd.data.sources.pictures import FolderPictures
from classroomkd.data.sources.reading import read_pictures
from classroomkd.data.sources.walking import Found, images_in, shown
from classroomkd.errors import UserError

__all__ = ["open_imagefolder"]


def open_imagefolder(argument: str, request: Request) -> Source:
    """See the module's text; ``request.unreadable`` says what becomes of files that are no images."""
    folder = Folder(argument, "imagefolder")
    if not folder.path.is_dir():
        raise UserError(f"data: imagefolder:{argument} is a file; give the folder that holds one folder per class")
    notes: list[str] = []
    places = part_folders(folder, notes)
    listings: dict[str, Listing] = {}
    left, first = Found(), next(iter(places))
    if "all" not in places:
        left.images += images_in(folder.path)
    for part, place in places.items():
        listings[part] = list_classes(folder, place, left, known=listings.get(first))
    report_left(folder, left, request, notes)
    classes = without_empty(listings[first], places[first], request, notes)
    for part, listing in listings.items():
        check_classes(classes, listing, places[part], notes)
    if "test" not in listings and "val" in listings:
        # Nobody's ImageNet score is measured on a piece of train.
        listings["test"] = listings.pop("val")
        notes.append(
            f"{shown(places['val'].name)}/ is used as the test part (there is no test/); a validation part is split off"
            f" {shown(places[first].name)}/"
        )
    files = {
        part: [(file, label) for label, name in enumerate(classes) for file in listing.get(name, ())]
        for part, listing in listings.items()
    }
    parts, views, mark = read_pictures(FolderPictures(folder.path), files, request, notes, "imagefolder", classes)
    return Source(shown(folder.path.resolve().name), classes, parts, views, mark, tuple(notes))
