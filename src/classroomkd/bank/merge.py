"""Bringing together what several machines filled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from classroomkd.bank.extend import named, next_number
from classroomkd.bank.guard import locked, storing
from classroomkd.bank.manifest import MANIFEST, Manifest, Span, refuse
from classroomkd.bank.rows import RowStore

__all__ = ["merge"]


def merge(sources: Sequence[Path], into: Path) -> int:
    """Add the rows of the stores ``sources`` to the store ``into``, which may not exist yet.

    Parts of positions that ``into`` does not have are linked (on the same file system) or copied as they are; of
    others, those rows are copied that are good there and not present here. The sources stay as they are; a linked part
    is one file in two folders.

    Returns:
        How many rows were added.

    Raises:
        UserError: a source holds answers to another question (the difference is said) or is not whole; nothing is
            merged then. No space left; what was merged stays.
    """
    others = [folder for folder in sources if folder.resolve() != into.resolve()]
    found = [Manifest.read(folder) for folder in others]
    if not found:
        return 0
    target = Manifest.read(into) if (into / MANIFEST).exists() else replace(found[0], parts=())
    for folder, manifest in zip(others, found, strict=True):
        refuse(folder, target, manifest)
        RowStore.at(folder).close()  # says it when a file was cut short
    added, overlapping = 0, []
    with locked(into):
        target = Manifest.read(into) if (into / MANIFEST).exists() else target
        for folder, manifest in zip(others, found, strict=True):
            for span in manifest.parts:
                if any(span.first < own.last and own.first < span.last for own in target.parts):
                    overlapping.append((folder, span))
                    continue
                target = _adopt(folder, span, into, target)
                added += _filled(folder, span)
    for folder, span in overlapping:
        added += _copy(folder, span, into, target)
    return added


def _adopt(folder: Path, span: Span, into: Path, target: Manifest) -> Manifest:
    """Bring a part's files as they are, under names that are free here, and name them in the manifest."""
    own = named(span.first, span.last, next_number(target))
    for source, name in ((span.rows, own.rows), (span.sums, own.sums)):
        temporary = into / f"{name}.tmp"
        with storing(into / name):
            temporary.unlink(missing_ok=True)
            try:
                os.link(folder / source, temporary)
            except OSError:
                shutil.copyfile(folder / source, temporary)
            temporary.replace(into / name)
    target = replace(target, parts=tuple(sorted((*target.parts, own), key=lambda part: part.first)))
    target.write(into)
    return target


def _filled(folder: Path, span: Span) -> int:
    return int(np.count_nonzero(np.fromfile(folder / span.sums, np.int32)))


def _copy(folder: Path, span: Span, into: Path, target: Manifest) -> int:
    """Row by row, those good there and missing here."""
    added = 0
    with (
        RowStore.at(folder) as source,
        RowStore.open(
            into,
            target.key,
            kind=target.kind,
            views=target.views,
            samples=target.samples,
            codec=source.codec,
            write=True,
            first=span.first,
            last=span.last,
        ) as here,
    ):
        for view in range(target.views):
            wanted = np.zeros(target.samples, bool)
            wanted[here.missing(view, span.first, span.last).numpy()] = True
            for positions, rows, words, good in source.table.blocks(view, wanted):
                if good.any():
                    here.table.put(np.full(int(good.sum()), view), positions[good], rows[good], words[good])
                    added += int(good.sum())
        here.flush()
    return added
