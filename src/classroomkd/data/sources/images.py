"""Source ``images:DIR`` (or a zip archive): pictures whose classes nobody has said.

Pictures lie in the folder itself or at any depth below it; what its folders are called says nothing. They are listed in
sorted order, and a picture's place in that list is its id. All are one part, without labels and without classes, which
come from elsewhere (``data.labels``, ``data.classes``). How they are read: ``reading``. For pose each is a person who
fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from classroomkd.data.decode import DecodeError
from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource, boxed
from classroomkd.data.keypoints.archive import Archive
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.people import UNKNOWN_SIZE, Persons, Picture
from classroomkd.data.skeleton import Skeleton
from classroomkd.data.sources.base import Folder, Request, Source, fingerprint, first_of
from classroomkd.data.sources.class_folders import report_left
from classroomkd.data.sources.pictures import FolderPictures, Pictures, ZipPictures
from classroomkd.data.sources.reading import read_pictures
from classroomkd.data.sources.walking import Found, is_image, look_through, passed_by, shown
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError

__all__ = ["open_images", "open_whole_people"]

_UNNAMED = Skeleton("nobody's", ("joint",), (), (0.079,), (), ())  # until somebody says which joints there are
_TABLES = (".csv", ".json")  # perhaps the labels


def open_images(argument: str, request: Request) -> Source:
    """See the module's text.

    Raises:
        UserError: no such folder or archive, no pictures, pictures that cannot be read where those are refused.
    """
    folder = Folder(argument, "images")
    notes: list[str] = []
    listed = _in_folder if folder.path.is_dir() else _in_archive
    pictures, names = listed(folder, request, notes)
    files = {"all": [(name, UNLABELLED) for name in names]}
    parts, views, mark = read_pictures(pictures, files, request, notes, "images", ())
    if not len(parts["all"].target):
        raise UserError(f"data: images:{argument}: none of its {len(names)} pictures can be decoded ({notes[-1]})")
    return Source(shown(folder.path.resolve().name), (), parts, views, mark, tuple(notes))


def open_whole_people(argument: str, request: Request) -> PersonSource:
    """Every picture as one person who fills it, and of whom no joint is known; see the module's text.

    Raises:
        UserError: no such folder or archive, no pictures.
    """
    folder = Folder(argument, "images")
    notes: list[str] = []
    listed = _in_folder if folder.path.is_dir() else _in_archive
    _, names = listed(folder, request, notes)
    store = _Known(folder.path, names)
    pictures = tuple(Picture(place, name, *_size(store, name)) for place, name in enumerate(names))
    store.turned.clear()  # the box is the whole picture, however that lies
    boxes = np.array([[0, 0, picture.width, picture.height] for picture in pictures], np.float64)
    skeleton = _UNNAMED if request.skeleton is None else request.skeleton
    place = np.arange(len(names))
    joints = np.zeros((len(names), len(skeleton), 3))
    persons = Persons.of(place, boxes, joints, boxed(boxes, pictures, place))
    listing = AnnotationFile(
        f"images:{argument}", pictures, persons, store, fingerprint("whole pictures", boxes), unlabelled=True
    )
    return PersonSource(
        shown(folder.path.resolve().name), skeleton, {"all": listing}, (256, 192), "person",
        notes=tuple(notes), named=request.skeleton is not None,
    )  # fmt: skip


class _Known(Files):
    """Files of which it is known what there is: links were followed, and what no picture is left out."""

    def __init__(self, path: Path, known: Sequence[str]) -> None:
        super().__init__(path)
        self.known = frozenset(known)

    def names(self) -> set[str]:
        """See the base."""
        return set(self.known)


def _size(store: Files, name: str) -> tuple[int, int]:
    """(height, width) of a picture; of one that cannot be read, which is found out when it is cropped, a stand-in."""
    try:
        return store.size(name)
    except (DecodeError, UserError):
        return UNKNOWN_SIZE


def _in_folder(folder: Folder, request: Request, notes: list[str]) -> tuple[Pictures, list[str]]:
    found = look_through(folder.path)
    others = [path for path in found.others if path.suffix.lower() not in _TABLES]
    report_left(folder, Found(others=others, lost=found.lost), request, notes)
    if not found.images:
        raise _nothing(folder, folder.inside(folder.path))
    return FolderPictures(folder.path), [path.relative_to(folder.path).as_posix() for path in found.images]


def _in_archive(folder: Folder, request: Request, notes: list[str]) -> tuple[Pictures, list[str]]:
    archive = Archive(folder.path)
    if not archive.whole():
        raise UserError(
            f"data: images:{folder.path} is no folder, and no zip archive that can be read; give a folder with pictures"
            " in it, or a zip archive of them"
        )
    members = [PurePosixPath(name) for name in dict.fromkeys(archive.names())]
    kept = sorted(path for path in members if not any(map(passed_by, path.parts)))
    names = [path.as_posix() for path in kept if is_image(path.name)]
    others = [Path(path) for path in kept if not is_image(path.name) and path.suffix.lower() not in _TABLES]
    if others:
        notes.append(f"{len(others)} files are no images by their name and were left out, e.g. {shown(others[0])}")
    if not names:
        raise _nothing(folder, first_of([shown(str(path)) for path in members]) or "nothing")
    return ZipPictures(archive), names


def _nothing(folder: Folder, inside: str) -> UserError:
    return UserError(
        f"data: images:{folder.path}: there is no picture in it, at any depth; it holds {inside}. Pictures are known by"
        " their names' ends (.jpg, .png, .webp and so on)"
    )
