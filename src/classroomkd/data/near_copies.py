"""Pictures that train without a label and are also what is measured on: found by their pixels, or by their files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch

from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.sources.base import first_of
from classroomkd.data.sources.pictures import Pictures
from classroomkd.data.sources.walking import shown
from classroomkd.data.statistics import MOST_DECODED

__all__ = ["Files", "copies_notes"]

Files = Mapping[int, tuple[Pictures, str]]
"""Where pictures lie, by their ids: those that are files."""


_MEASURED = {
    "test": "what is measured on it is flattered",
    "validation": "what is chosen by it is chosen by pictures that were trained on",
}


def copies_notes(
    extra: Part, measured: Mapping[str, Part], files: Files, names: Mapping[int, str] | None = None
) -> list[str]:
    """Sentences about the images of ``extra`` that a part has, too, on which something is measured.

    Compared are the pixels as the parts have them, where both are in memory or few; else the files, if both are files:
    their lengths and bytes, of large ones those at the start and the end.

    Args:
        extra: the images without labels.
        measured: the parts, ``test`` and ``validation``; of one without labels nothing is said.
        files: where images lie, by id.
        names: what those are called that do not lie there, by id.
    """
    called = {**(names or {}), **{sample: name for sample, (_, name) in files.items()}}
    notes = (_note(extra, part, files, called, name) for name, part in measured.items() if bool(part.labelled.any()))
    return [note for note in notes if note is not None]


def _note(extra: Part, measured: Part, files: Files, called: Mapping[int, str], name: str) -> str | None:
    mine: dict[int, bytes]
    if _few(extra) and _few(measured):
        mine, theirs = _by_pixels(extra), set(_by_pixels(measured).values())
    elif all(int(i) in files for part in (extra, measured) for i in part.ids):
        mine, theirs = _by_files(extra, measured, files)
    else:
        return None
    same = [sample for sample, mark in mine.items() if mark in theirs]
    if not same:
        return None
    names = first_of([shown(called[sample]) if sample in called else f"image {sample}" for sample in same], 3)
    count = f"{len(same)} of {len(extra)} pictures of data.unlabelled {'is' if len(same) == 1 else 'are'}"
    return f"{count} also in the {name} part ({names}): {_MEASURED[name]}"


def _few(part: Part) -> bool:
    return isinstance(part.pixels, MemoryPixels) or len(part) <= MOST_DECODED


def _by_pixels(part: Part) -> dict[int, bytes]:
    marks: dict[int, bytes] = {}
    chunk = max(1, 2**22 // math.prod(part.pixels.shape))
    for places in torch.split(torch.arange(len(part)), chunk):
        pixels, _, ids = part.batch(places)
        for sample, image in zip(ids.tolist(), pixels.cpu().numpy(), strict=True):
            marks[sample] = _digest(image.tobytes())
    return marks


def _by_files(extra: Part, measured: Part, files: Files) -> tuple[dict[int, bytes], set[bytes]]:
    """What is compared of files whose length occurs on both sides."""
    lengths = [{int(i): _content(files, int(i), read=False)[0] for i in part.ids} for part in (extra, measured)]
    both = set(lengths[0].values()) & set(lengths[1].values()) - {-1}
    marks = [
        {sample: _digest(_content(files, sample, read=True)[1]) for sample, length in found.items() if length in both}
        for found in lengths
    ]
    return marks[0], set(marks[1].values())


def _content(files: Files, sample: int, *, read: bool) -> tuple[int, bytes]:
    pictures, name = files[sample]
    return pictures.content(name, read=read)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
