"""Files of pictures to the parts of a source: sizes, decoding, what cannot be read, copies, the fingerprint.

Images are decoded once into memory when they fit ``options.memory_gib`` (2), else whenever they are needed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from classroomkd.data import decode, geometry
from classroomkd.data.file_pixels import pool_size
from classroomkd.data.images import MemoryPixels, Pixels
from classroomkd.data.sources.base import Raw, Request
from classroomkd.data.sources.copies import Copies
from classroomkd.data.sources.pictures import Pictures
from classroomkd.data.sources.walking import shown
from classroomkd.errors import UserError

__all__ = ["Files", "read_pictures"]

_DEFAULT_SIZE = 224  # what images of different sizes are brought to when the recipe names no size
_SMALL = 64  # up to this side, images are augmented by crop and flip; larger ones by resized crops
_MOST_HEADS = 10_000

Files = Sequence[tuple[str, int]]
"""The images of one part: name, class."""


def read_pictures(
    pictures: Pictures,
    files: Mapping[str, Files],
    request: Request,
    notes: list[str],
    kind: str,
    classes: tuple[str, ...],
) -> tuple[dict[str, Raw], str, str]:
    """Parts from files in their stable order, the views that suit them, and their fingerprint.

    Args:
        pictures: where the files are.
        files: by part the names of the files and their classes.
        request: how they are to be read.
        notes: where notes go.
        kind: the source, for the fingerprint.
        classes: the names of the classes, for the fingerprint.

    Raises:
        UserError: for unreadable files when they are to be refused, naming the first ones.
    """
    everything = [name for listed in files.values() for name, _ in listed]
    bad: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}  # of the readable pictures
    size, shape = _common_shape(pictures, everything, request, bad, notes, sizes)
    budget = float(request.options.get("memory_gib", 2.0)) * 2**30
    in_memory = len(everything) * int(np.prod(shape)) <= budget
    images = np.empty((len(everything) if in_memory else 0, *shape), np.uint8)
    if in_memory:
        _decode_all(pictures, everything, size, request.resize, images, bad, sizes)
    elif not bad and request.size is not None:
        # Heads are cheap beside decoding, and a file that is no image at all should not wait for its epoch.
        sizes = _scan(pictures, everything, bad)
    if not in_memory:
        pictures.on_demand(everything, size, request.resize, shape)  # which may be refused
        _try_files(pictures, everything, request, size, bad)
    _report(pictures, bad, request, notes)
    parts, start = {}, 0
    for part, listed in files.items():
        keep = [place for place, (name, _) in enumerate(listed) if name not in bad]
        pixels: Pixels
        if in_memory:
            mine = images[start : start + len(listed)]
            pixels = MemoryPixels(torch.from_numpy(mine if len(keep) == len(listed) else mine[keep]))
        else:
            pixels = pictures.on_demand([listed[place][0] for place in keep], size, request.resize, shape)
        start += len(listed)
        target = torch.tensor([listed[place][1] for place in keep], dtype=torch.int64)
        sides = Counter(sizes[listed[place][0]] for place in keep)
        places = torch.tensor(keep, dtype=torch.int64)
        names = [name for name, _ in listed]
        parts[part] = Raw(pixels, target, places, len(listed), sides=sides, names=names, pictures=pictures)
    views = "crop_flip" if max(shape[1:]) <= _SMALL else "resized_crop"
    copies = Copies()
    mark = _fingerprint(pictures, files, f"{kind} size={size} {'|'.join(classes)}", copies, bad)
    notes += copies.notes()
    return parts, views, mark


def _parallel(pictures: Pictures, work: Callable[[str], None], names: Iterable[str], bad: dict[str, str]) -> None:
    """Do ``work`` on every file; those that cannot be decoded go to ``bad`` with their reason."""

    def tried(name: str) -> None:
        try:
            work(name)
        except decode.DecodeError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:  # the system's; a decoder's own has no number
                bad[name] = pictures.problem(name, cause)
            else:
                bad[name] = str(error)

    with ThreadPoolExecutor(pool_size(), thread_name_prefix="decode") as pool:
        for _ in pool.map(tried, names):
            pass


def _scan(pictures: Pictures, names: Sequence[str], bad: dict[str, str]) -> dict[str, tuple[int, int]]:
    """(height, width) of every readable file; the others go to ``bad`` with their reason."""
    sizes: dict[str, tuple[int, int]] = {}

    def look(name: str) -> None:
        sizes[name] = pictures.sides(name)

    _parallel(pictures, look, names, bad)
    return sizes


def _common_shape(
    pictures: Pictures,
    names: Sequence[str],
    request: Request,
    bad: dict[str, str],
    notes: list[str],
    seen: dict[str, tuple[int, int]],
) -> tuple[int | None, tuple[int, int, int]]:
    """The size to ask of the geometry rule and the shape it gives: the files' own when they all agree and are not
    large."""
    size = request.size
    if size is not None:
        return size, (3, size, size)
    seen.update(_scan(pictures, names, bad))
    sizes = set(seen.values())
    if len(sizes) == 1 and max(next(iter(sizes))) <= _DEFAULT_SIZE:
        out = geometry.fitted_shape(*next(iter(sizes)), None, request.resize)
        return None, (3, *out)
    if sizes:
        what = "have different sizes" if len(sizes) > 1 else "are large"
        notes.append(f"the images {what} and are brought to {_DEFAULT_SIZE}x{_DEFAULT_SIZE}; data.size chooses another")
    return _DEFAULT_SIZE, (3, _DEFAULT_SIZE, _DEFAULT_SIZE)


def _decode_all(
    pictures: Pictures,
    names: Sequence[str],
    size: int | None,
    resize: str,
    images: NDArray[np.uint8],
    bad: dict[str, str],
    sizes: dict[str, tuple[int, int]],
) -> None:
    """Decode every file that is not ``bad`` into its row of ``images``, its (height, width) into ``sizes``; the
    others go to ``bad`` with their reason."""
    rows = {name: row for row, name in enumerate(names)}

    def work(name: str) -> None:
        images[rows[name]], sizes[name] = pictures.decode(name, size, resize)

    _parallel(pictures, work, [name for name in names if name not in bad], bad)


def _try_files(
    pictures: Pictures, names: Sequence[str], request: Request, size: int | None, bad: dict[str, str]
) -> None:
    """Decode files that are to be read on demand, so that a damaged one does not end the training: all of them where
    those are to be skipped, else those that may be cut off."""

    def work(name: str) -> None:
        if request.unreadable == "skip" or pictures.doubtful(name):
            pictures.decode(name, size, request.resize)

    _parallel(pictures, work, [name for name in names if name not in bad], bad)


def _report(pictures: Pictures, bad: dict[str, str], request: Request, notes: list[str]) -> None:
    if not bad:
        return
    names = sorted(bad)
    if request.unreadable == "refuse":
        listed = "; ".join(f"{pictures.shown(name)}: {bad[name]}" for name in names[:3])
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise UserError(
            f"data: {len(names)} image{'s' if len(names) > 1 else ''} cannot be decoded: {listed}{more}."
            " Mend or remove them, or set data.unreadable: skip"
        )
    some = ", ".join(map(shown, names[:3])) + (", …" if len(names) > 3 else "")
    notes.append(f"{len(names)} unreadable image{'s' if len(names) > 1 else ''} skipped: {some}")


def _fingerprint(
    pictures: Pictures,
    files: Mapping[str, Files],
    definition: str,
    copies: Copies,
    bad: Container[str],
) -> str:
    """SHA-256 of names, classes and sizes of all files, and of the content of 10,000 spread evenly: whole up to
    64 KiB, else the first and last 4 KiB. ``copies`` gets to see them, but for the ``bad``.

    A compressed picture that changed somewhere has other bytes, and nearly always another length, at its end.
    The same whether images are kept in memory or not, and the same for a copy of the folder elsewhere.
    """
    total = hashlib.sha256(definition.encode())
    flat = [(part, name, label) for part, listed in files.items() for name, label in listed]
    step = max(1, -(-len(flat) // _MOST_HEADS))
    for place, (part, name, label) in enumerate(flat):
        length, content = pictures.content(name, read=place % step == 0)
        total.update(b"|%b/%b|%d|%d|" % (part.encode(), os.fsencode(name), label, length))
        total.update(content)
        if name not in bad:
            copies.look(part, name, label, length, content)
    return total.hexdigest()
