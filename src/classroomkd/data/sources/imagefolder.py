"""Source ``imagefolder:DIR``: your own images, one folder per class.

``DIR/class/*.jpg`` is one part, to be split by ``load``. ``DIR/train/class/…`` with ``DIR/val`` and ``DIR/test`` beside
it (in any usual spelling, see ``parts``) are taken as they are; with train and val only, val is what the final score is
measured on (as everybody does with ImageNet) and a validation part is split off train. Class names are the folders'
names, sorted; files are listed recursively, in sorted order, and a file's place in that list is its id.

Images are decoded once into memory when they fit ``options.memory_gib`` (2), else whenever they are needed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from classroomkd.data import decode, geometry
from classroomkd.data.file_pixels import FilePixels, pool_size
from classroomkd.data.images import MemoryPixels, Pixels
from classroomkd.data.sources.base import Folder, Raw, Request, Source
from classroomkd.data.sources.class_folders import Listing, check_classes, list_classes, report_left, without_empty
from classroomkd.data.sources.copies import Copies
from classroomkd.data.sources.parts import part_folders
from classroomkd.data.sources.walking import Found, images_in, link_problem, shown
from classroomkd.data.sources.whole import may_be_cut_off
from classroomkd.errors import UserError

__all__ = ["open_imagefolder"]

_DEFAULT_SIZE = 224  # what images of different sizes are brought to when the recipe names no size
_SMALL = 64  # up to this side, images are augmented by crop and flip; larger ones by resized crops
_WHOLE = 2**16  # bytes; a file of no more enters the fingerprint as it is
_HEAD = 4096  # bytes of a larger one, from its start and from its end
_MOST_HEADS = 10_000

Files = Sequence[tuple[str, int]]  # the images of one part: path, class


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
    return _read(folder.path, files, classes, request, notes)


def _read(
    root: Path, files: Mapping[str, Files], classes: tuple[str, ...], request: Request, notes: list[str]
) -> Source:
    """Parts from files (relative path, class) in their stable order.

    Raises:
        UserError: for unreadable files when they are to be refused, naming the first ones.
    """
    everything = [name for listed in files.values() for name, _ in listed]
    bad: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}  # of the readable pictures
    size, shape = _common_shape(root, everything, request, bad, notes, sizes)
    budget = float(request.options.get("memory_gib", 2.0)) * 2**30
    in_memory = len(everything) * int(np.prod(shape)) <= budget
    images = np.empty((len(everything) if in_memory else 0, *shape), np.uint8)
    if in_memory:
        _decode_all(root, everything, size, request.resize, images, bad, sizes)
    elif not bad and request.size is not None:
        # Heads are cheap beside decoding, and a file that is no image at all should not wait for its epoch.
        sizes = _scan(root, everything, bad)
    if not in_memory:
        _try_files(root, everything, request, size, bad)
    _report(root, bad, request, notes)
    parts, start = {}, 0
    for part, listed in files.items():
        keep = [place for place, (name, _) in enumerate(listed) if name not in bad]
        pixels: Pixels
        if in_memory:
            mine = images[start : start + len(listed)]
            pixels = MemoryPixels(torch.from_numpy(mine if len(keep) == len(listed) else mine[keep]))
        else:
            pixels = FilePixels(
                root, [listed[place][0] for place in keep], size=size, resize=request.resize, shape=shape
            )
        start += len(listed)
        target = torch.tensor([listed[place][1] for place in keep], dtype=torch.int64)
        sides = Counter(sizes[listed[place][0]] for place in keep)
        places = torch.tensor(keep, dtype=torch.int64)
        names = [name for name, _ in listed]
        parts[part] = Raw(pixels, target, places, len(listed), sides=sides, names=names)
    views = "crop_flip" if max(shape[1:]) <= _SMALL else "resized_crop"
    copies = Copies()
    mark = _fingerprint(root, files, classes, size, copies, bad)
    notes += copies.notes()
    return Source(shown(root.resolve().name), classes, parts, views, mark, tuple(notes))


def _parallel(root: Path, work: Callable[[str], None], names: Iterable[str], bad: dict[str, str]) -> None:
    """Do ``work`` on every file; those that cannot be decoded go to ``bad`` with their reason."""

    def tried(name: str) -> None:
        try:
            work(name)
        except decode.DecodeError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:  # the system's; a decoder's own has no number
                bad[name] = link_problem(root / name, cause)
            else:
                bad[name] = str(error)

    with ThreadPoolExecutor(pool_size(), thread_name_prefix="decode") as pool:
        for _ in pool.map(tried, names):
            pass


def _scan(root: Path, names: Sequence[str], bad: dict[str, str]) -> dict[str, tuple[int, int]]:
    """(height, width) of every readable file; the others go to ``bad`` with their reason."""
    sizes: dict[str, tuple[int, int]] = {}

    def look(name: str) -> None:
        sizes[name] = decode.oriented_size(root / name)

    _parallel(root, look, names, bad)
    return sizes


def _common_shape(
    root: Path,
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
    seen.update(_scan(root, names, bad))
    sizes = set(seen.values())
    if len(sizes) == 1 and max(next(iter(sizes))) <= _DEFAULT_SIZE:
        out = geometry.fitted_shape(*next(iter(sizes)), None, request.resize)
        return None, (3, *out)
    if sizes:
        what = "have different sizes" if len(sizes) > 1 else "are large"
        notes.append(f"the images {what} and are brought to {_DEFAULT_SIZE}x{_DEFAULT_SIZE}; data.size chooses another")
    return _DEFAULT_SIZE, (3, _DEFAULT_SIZE, _DEFAULT_SIZE)


def _decode_all(
    root: Path,
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
        images[rows[name]], sizes[name] = decode.decode_sized(root / name, size, resize)

    _parallel(root, work, [name for name in names if name not in bad], bad)


def _try_files(root: Path, names: Sequence[str], request: Request, size: int | None, bad: dict[str, str]) -> None:
    """Decode files that are to be read on demand, so that a damaged one does not end the training: all of them where
    those are to be skipped, else those that may be cut off."""

    def work(name: str) -> None:
        try:
            doubtful = request.unreadable == "skip" or may_be_cut_off(root / name)
        except OSError:
            doubtful = True  # the decoder says why
        if doubtful:
            decode.decode(root / name, size, request.resize)

    _parallel(root, work, [name for name in names if name not in bad], bad)


def _report(root: Path, bad: dict[str, str], request: Request, notes: list[str]) -> None:
    if not bad:
        return
    names = sorted(bad)
    if request.unreadable == "refuse":
        listed = "; ".join(f"{shown(root / name)}: {bad[name]}" for name in names[:3])
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise UserError(
            f"data: {len(names)} image{'s' if len(names) > 1 else ''} cannot be decoded: {listed}{more}."
            " Mend or remove them, or set data.unreadable: skip"
        )
    some = ", ".join(map(shown, names[:3])) + (", …" if len(names) > 3 else "")
    notes.append(f"{len(names)} unreadable image{'s' if len(names) > 1 else ''} skipped: {some}")


def _fingerprint(
    root: Path,
    files: Mapping[str, Files],
    classes: tuple[str, ...],
    size: int | None,
    copies: Copies,
    bad: Container[str],
) -> str:
    """SHA-256 of names, classes and sizes of all files, and of the content of 10,000 spread evenly: whole up to
    64 KiB, else the first and last 4 KiB. ``copies`` gets to see them, but for the ``bad``.

    A compressed picture that changed somewhere has other bytes, and nearly always another length, at its end.
    The same whether images are kept in memory or not, and the same for a copy of the folder elsewhere.
    """
    total = hashlib.sha256(f"imagefolder size={size} {'|'.join(classes)}".encode())
    flat = [(part, name, label) for part, listed in files.items() for name, label in listed]
    step = max(1, -(-len(flat) // _MOST_HEADS))
    for place, (part, name, label) in enumerate(flat):
        length, content = _content(root / name, read=place % step == 0)
        total.update(b"|%b/%b|%d|%d|" % (part.encode(), os.fsencode(name), label, length))
        total.update(content)
        if name not in bad:
            copies.look(part, name, label, length, content)
    return total.hexdigest()


def _content(path: Path, *, read: bool) -> tuple[int, bytes]:
    """A file's length and what of it is compared; nothing of one that cannot be read, which was reported before."""
    try:
        length = path.stat().st_size
        if not read:
            return length, b""
        with path.open("rb") as file:
            content = file.read(_WHOLE if length <= _WHOLE else _HEAD)
            if length > _WHOLE:
                file.seek(length - _HEAD)
                content += file.read(_HEAD)
        return length, content
    except OSError:
        return -1, b""
