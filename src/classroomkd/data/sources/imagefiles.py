"""Listed image files to parts: decode into memory when they fit, else on demand; unreadable ones are named, refused
or skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from classroomkd.data import decode, geometry
from classroomkd.data.file_pixels import FilePixels, pool_size
from classroomkd.data.images import MemoryPixels, Pixels
from classroomkd.data.sources.base import Raw, Request, Source
from classroomkd.errors import UserError

__all__ = ["DEFAULT_SIZE", "SMALL", "read"]

DEFAULT_SIZE = 224
"""What images of different sizes are brought to when the recipe names no size."""

SMALL = 64
"""Up to this side, images are augmented by crop and flip; larger ones by resized crops."""

_WHOLE = 2**16  # bytes; a file of no more enters the fingerprint as it is
_HEAD = 4096  # bytes of a larger one, from its start and from its end
_MOST_HEADS = 10_000

Files = Sequence[tuple[str, int]]


def read(
    root: Path, files: Mapping[str, Files], classes: tuple[str, ...], request: Request, notes: list[str]
) -> Source:
    """Parts from files (relative path, class) in their stable order.

    Raises:
        UserError: for unreadable files when they are to be refused, naming the first ones.
    """
    everything = [name for listed in files.values() for name, _ in listed]
    bad: dict[str, str] = {}
    size, shape = _common_shape(root, everything, request.size, bad, notes)
    budget = float(request.options.get("memory_gib", 2.0)) * 2**30
    in_memory = len(everything) * int(np.prod(shape)) <= budget
    images = np.empty((len(everything) if in_memory else 0, *shape), np.uint8)
    if in_memory:
        _decode_all(root, everything, size, images, bad)
    elif not bad and request.size is not None:
        # Heads are cheap beside decoding, and a file that is no image at all should not wait for its epoch.
        _scan(root, everything, bad)
    _report(root, bad, request, notes)
    parts, start = {}, 0
    for part, listed in files.items():
        keep = [place for place, (name, _) in enumerate(listed) if name not in bad]
        pixels: Pixels
        if in_memory:
            mine = images[start : start + len(listed)]
            pixels = MemoryPixels(torch.from_numpy(mine if len(keep) == len(listed) else mine[keep]))
        else:
            pixels = FilePixels(root, [listed[place][0] for place in keep], size=size, shape=shape)
        start += len(listed)
        target = torch.tensor([listed[place][1] for place in keep], dtype=torch.int64)
        parts[part] = Raw(pixels, target, torch.tensor(keep, dtype=torch.int64), len(listed))
    views = "crop_flip" if max(shape[1:]) <= SMALL else "resized_crop"
    return Source(root.resolve().name, classes, parts, views, _fingerprint(root, files, classes, size), tuple(notes))


def _parallel(work: Callable[[str], None], names: Iterable[str], bad: dict[str, str]) -> None:
    """Do ``work`` on every file; those that cannot be decoded go to ``bad`` with their reason."""

    def tried(name: str) -> None:
        try:
            work(name)
        except decode.DecodeError as error:
            bad[name] = str(error)

    with ThreadPoolExecutor(pool_size(), thread_name_prefix="decode") as pool:
        for _ in pool.map(tried, names):
            pass


def _scan(root: Path, names: Sequence[str], bad: dict[str, str]) -> dict[str, tuple[int, int]]:
    """(height, width) of every readable file; the others go to ``bad`` with their reason."""
    sizes: dict[str, tuple[int, int]] = {}

    def look(name: str) -> None:
        sizes[name] = decode.oriented_size(root / name)

    _parallel(look, names, bad)
    return sizes


def _common_shape(
    root: Path, names: Sequence[str], size: int | None, bad: dict[str, str], notes: list[str]
) -> tuple[int | None, tuple[int, int, int]]:
    """The size to ask of the geometry rule and the shape it gives: the files' own when they all agree and are not
    large."""
    if size is not None:
        return size, (3, size, size)
    sizes = set(_scan(root, names, bad).values())
    if len(sizes) == 1 and max(next(iter(sizes))) <= DEFAULT_SIZE:
        out = geometry.plan(*next(iter(sizes)), None).out
        return None, (3, *out)
    if sizes:
        what = "have different sizes" if len(sizes) > 1 else "are large"
        notes.append(f"the images {what} and are brought to {DEFAULT_SIZE}x{DEFAULT_SIZE}; data.size chooses another")
    return DEFAULT_SIZE, (3, DEFAULT_SIZE, DEFAULT_SIZE)


def _decode_all(
    root: Path, names: Sequence[str], size: int | None, images: NDArray[np.uint8], bad: dict[str, str]
) -> None:
    """Decode every file that is not ``bad`` into its row of ``images``; the others go to ``bad`` with their reason."""
    rows = {name: row for row, name in enumerate(names)}

    def work(name: str) -> None:
        images[rows[name]] = decode.decode(root / name, size)

    _parallel(work, [name for name in names if name not in bad], bad)


def _report(root: Path, bad: dict[str, str], request: Request, notes: list[str]) -> None:
    if not bad:
        return
    names = sorted(bad)
    if request.unreadable == "refuse":
        listed = "; ".join(f"{root / name}: {bad[name]}" for name in names[:3])
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise UserError(
            f"data: {len(names)} image{'s' if len(names) > 1 else ''} cannot be decoded: {listed}{more}."
            " Mend or remove them, or set data.unreadable: skip"
        )
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    notes.append(f"{len(names)} unreadable image{'s' if len(names) > 1 else ''} skipped: {shown}")


def _fingerprint(root: Path, files: Mapping[str, Files], classes: tuple[str, ...], size: int | None) -> str:
    """SHA-256 of names, classes and sizes of all files, and of the content of 10,000 spread evenly: whole up to
    64 KiB, else the first and last 4 KiB.

    A compressed picture that changed somewhere has other bytes, and nearly always another length, at its end.
    The same whether images are kept in memory or not, and the same for a copy of the folder elsewhere.
    """
    total = hashlib.sha256(f"imagefolder size={size} {'|'.join(classes)}".encode())
    flat = [(part, name, label) for part, listed in files.items() for name, label in listed]
    step = max(1, -(-len(flat) // _MOST_HEADS))
    for place, (part, name, label) in enumerate(flat):
        path = root / name
        length = path.stat().st_size
        total.update(f"|{part}/{name}|{label}|{length}|".encode())
        if place % step == 0:
            with path.open("rb") as file:
                total.update(file.read(_WHOLE if length <= _WHOLE else _HEAD))
                if length > _WHOLE:
                    file.seek(length - _HEAD)
                    total.update(file.read(_HEAD))
    return total.hexdigest()
