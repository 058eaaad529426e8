"""Source ``images:DIR`` (or a zip archive): pictures whose classes nobody has said.

Pictures lie in the folder itself or at any depth below it; what its folders are called says nothing. They are listed in
sorted order, and a picture's place in that list is its id. All are one part, without labels and without classes, which
come from elsewhere (``data.labels``, ``data.classes``). How they are read: ``reading``.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from classroomkd.data.keypoints.archive import Archive
from classroomkd.data.sources.base import Folder, Request, Source, first_of
from classroomkd.data.sources.class_folders import report_left
from classroomkd.data.sources.pictures import FolderPictures, Pictures, ZipPictures
from classroomkd.data.sources.reading import read_pictures
from classroomkd.data.sources.walking import Found, is_image, look_through, passed_by, shown
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError

__all__ = ["open_images"]

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
