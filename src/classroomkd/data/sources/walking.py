"""Folders of images, looked through so that nothing is lost without a word.

What begins with a dot, and what tools leave in folders (thumbnails, waste baskets), is passed by at every depth. Links
are followed, each folder once, so that circles end. What cannot be read is named.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from classroomkd.data import decode
from classroomkd.errors import UserError

__all__ = [
    "Found",
    "broken_links_in",
    "class_name",
    "folders_in",
    "folders_seen_in",
    "images_in",
    "is_image",
    "link_problem",
    "look_through",
    "passed_by",
    "shown",
]

_HALVES = re.compile("[\ud800-\udfff]")  # what Python puts for bytes that are no text
_TOOL_FOLDERS = frozenset({
    "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
    "lost+found", "recycler", "system volume information",
})  # fmt: skip
_TOOL_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})


def passed_by(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a tool's own."""
    return name.startswith(".") or name.lower() in _TOOL_FOLDERS or name.lower() in _TOOL_FILES


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in decode.ENDINGS


def shown(path: str | Path) -> str:
    """A path as text: bytes that are none (a name in another encoding) as replacement characters."""
    return _HALVES.sub("\ufffd", os.fspath(path))


def class_name(folder: str) -> str:
    """The name of the class that a folder holds: text, its accents written in one way (NFC)."""
    return unicodedata.normalize("NFC", shown(folder))


@dataclass
class Found:
    """What lies below a folder: images, other files, and what is there and cannot be read, with the reason."""

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    lost: dict[Path, str] = field(default_factory=dict)


def folders_in(path: Path) -> list[Path]:
    """The folders in ``path``, links to folders included, by name.

    Raises:
        UserError: it may not be read.
    """
    return [path / entry.name for entry in _entries(path) if _is_folder(entry)]


def folders_seen_in(path: Path) -> list[Path]:
    """The same of a folder that is only looked at by the way: none where it may not be read."""
    try:
        return folders_in(path)
    except UserError:
        return []


def broken_links_in(path: Path) -> dict[Path, str]:
    """Links in ``path`` that lead nowhere and could have been folders, with the reason."""
    found = {path / entry.name: _broken(path / entry.name, entry) for entry in _entries(path)}
    return {place: why for place, why in found.items() if why and not is_image(place.name)}


def images_in(path: Path) -> list[Path]:
    """The images that lie in ``path`` itself, by name.

    Raises:
        UserError: it may not be read.
    """
    return [path / entry.name for entry in _entries(path) if is_image(entry.name) and not _is_folder(entry)]


def look_through(top: Path) -> Found:
    """Every file below ``top``, at any depth, sorted."""
    found = Found()
    waiting, seen = [top], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = [entry for entry in os.scandir(folder) if not passed_by(entry.name)]
        except OSError as error:
            found.lost[folder] = error.strerror or type(error).__name__
            continue
        inner = [entry for entry in entries if _is_folder(entry)]
        # The last is taken first: real folders come before links, so that a file keeps its own path.
        waiting += [folder / entry.name for entry in sorted(inner, key=_links_first)]
        for entry in entries:
            if entry not in inner:
                _put(folder / entry.name, entry, found)
    found.images.sort()
    found.others.sort()
    return found


def _put(path: Path, entry: os.DirEntry[str], found: Found) -> None:
    """A file to its kind. A link to an image that is not there stays an image: the decoder names it."""
    broken = _broken(path, entry)
    if is_image(entry.name) and (broken or entry.is_file()):
        found.images.append(path)
    elif broken:
        found.lost[path] = broken
    elif entry.is_file():
        found.others.append(path)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        entries = [entry for entry in os.scandir(path) if not passed_by(entry.name)]
    except OSError as error:
        raise UserError(f"data: {shown(path)} cannot be read: {error.strerror}. Mend or remove it") from error
    return sorted(entries, key=lambda entry: entry.name)


def _links_first(entry: os.DirEntry[str]) -> tuple[bool, str]:
    return not entry.is_symlink(), entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _broken(path: Path, entry: os.DirEntry[str]) -> str:
    """Why a link leads nowhere; empty where it does, or is none."""
    if not entry.is_symlink():
        return ""
    try:
        path.stat()
    except OSError as error:
        return link_problem(path, error)
    return ""


def link_problem(path: Path, error: OSError) -> str:
    """Why a file cannot be read, in words."""
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return f"it is a link to {shown(os.readlink(path))}, which is not there"
    return error.strerror or type(error).__name__
