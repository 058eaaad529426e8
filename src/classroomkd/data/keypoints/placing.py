"""Where the pictures of an annotation file are: their folder, and each one's name in it.

Files write names as their author's machine had them: ``./a.jpg``, ``../train2017/a.jpg``, ``dir\\a.jpg``,
``/home/me/set/a.jpg``. A picture is looked for by the longest end of its written path that is there, then without
regard to case, then by its name alone where only one is called so. Two written names never become one file.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from classroomkd.data.keypoints.files import Files
from classroomkd.errors import UserError

__all__ = ["Placed", "locate", "pictures_in", "placed", "reason"]

_LOOKED_AT = 20  # pictures of a file, before its folder is decided upon


class Placed(NamedTuple):
    """Where pictures are read, and the name there of each written name; one that is not there is not among them."""

    store: Files
    files: Mapping[str, str]


def _ends(written: str) -> list[str]:
    """The ends of a written path, the longest first."""
    parts = re.sub(r"^[A-Za-z]:", "", written.replace("\\", "/")).split("/")
    parts = [part for part in parts if part not in ("", ".", "..")]
    return ["/".join(parts[k:]) for k in range(len(parts))]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def locate(there: set[str], written: Sequence[str]) -> dict[str, str]:
    """For each written name the file of ``there`` that is meant, where there is one and no other name means it too."""
    found = {name: name for name in written if name in there}
    rest = [name for name in dict.fromkeys(written) if name not in found]
    guessed = {name: end for name in rest if (end := next((e for e in _ends(name) if e in there), None)) is not None}
    if left := [name for name in rest if name not in guessed]:
        folded: dict[str, list[str]] = {}
        for file in there:
            for end in {_folded(file), _folded(PurePosixPath(file).name)}:
                folded.setdefault(end, []).append(file)
        for name in left:
            for end in _ends(name):
                if len(same := folded.get(_folded(end), [])) == 1:
                    guessed[name] = same[0]
                    break
    count = Counter([*found.values(), *guessed.values()])
    return found | {name: file for name, file in guessed.items() if count[file] == 1}


def reason(there: set[str], written: str) -> str:
    """Why a written name is not found, as far as can be told; nothing where nothing can."""
    ends = _ends(written)
    if not ends:
        return " (it is no name of a file)"
    if any(end in there for end in ends):
        return " (another entry means the same file)"
    stem = PurePosixPath(ends[-1]).stem.casefold()
    near = sorted(file for file in there if PurePosixPath(file).stem.casefold() == stem)
    if len(near) == 1:
        return f" (there is {near[0]})"
    if near:
        return f" (there are {near[0]} and {len(near) - 1} more of that name)"
    return f" (looked for {ends[-1]})" if ends[-1] != written else ""


def pictures_in(store: Files, written: Sequence[str]) -> Placed:
    """The pictures below ``store``."""
    return Placed(store, locate(store.names(), written))


def placed(store: Files, file: str, written: Sequence[str], images: str | None, where: str) -> Placed:
    """The pictures of the annotation file ``file`` of ``store``.

    They are in ``images``, where the user says it (a folder of the source, or any other); else beside the annotations
    or in a folder called ``images``, ``train2017``, ``images/train2017``, ``train/images`` … there or further up; else
    anywhere below such a folder.

    Raises:
        UserError: none of them is anywhere.
    """
    if not written:
        return Placed(store, {})
    some = written[:: max(1, len(written) // _LOOKED_AT)][:_LOOKED_AT]
    if images is not None:
        return pictures_in(_below(_named(store, images), file, some) or _named(store, images), written)
    if (near := _below(store, file, some)) is not None:
        return pictures_in(near, written)
    deeper = {name for name in store.names() if any(re.fullmatch(_DEEPER, part) for part in name.split("/")[:-1])}
    files = locate(deeper, written)
    if not any(name in files for name in some):
        tries = ", ".join(dict.fromkeys(f"{store.path}/{inside}" for inside in _folders(file)[:6]))
        raise UserError(
            f"data: {where}: its images ({written[0]}, …) are in none of {tries}, nor deeper"
            f"{reason(store.names(), written[0])}; data.options.images names their folder"
        )
    return Placed(store, files)


def _named(store: Files, images: str) -> Files:
    """The folder that ``data.options.images`` names: of the source, else any other."""
    if not store.holds(images) and (Path(images).expanduser().is_dir() or images.endswith(".zip")):
        return Files(Path(images).expanduser())
    return store.below(images)


def _folders(file: str) -> list[str]:
    """Where the pictures of an annotation file may be, inside its source."""
    path = PurePosixPath(file)
    words = [match[0] for part in (path.stem, *reversed(path.parent.parts)) if (match := re.search(_PART, part))]
    words += [word for word in ("val", "valid", "validation") if any(w.startswith("val") for w in words)]
    inner = ["", "images", *words, *(f"images/{w}" for w in words), *(f"{w}/images" for w in words)]
    bases = [parent.as_posix() for parent in path.parents]
    bases = [*bases[-1:], *bases[:-1]]  # the source itself first
    return list(
        dict.fromkeys("/".join(p for p in (base, last) if p not in ("", ".")) for base in bases for last in inner)
    )


_PART = r"(train|val|test)[a-z]*\d*"
_DEEPER = rf"images?|imgs?|{_PART}"


def _below(store: Files, file: str, some: Sequence[str]) -> Files | None:
    """The first folder with one of the pictures; of the longest ends of their names first."""
    ends = [_ends(name) for name in some]
    exact = [[name] for name in some]
    for depth in range(-1, max(map(len, ends), default=0)):
        names = [row[min(max(depth, 0), len(row) - 1)] for row in (exact if depth < 0 else ends) if row]
        for inside in _folders(file):
            below = store.below(f"{store.inside}/{inside}" if store.inside else inside)
            if any(name in below for name in names):
                return below
    return None
