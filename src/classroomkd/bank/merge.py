"""Merging stores that several machines filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classroomkd.bank.maintenance import stores
from classroomkd.bank.manifest import MANIFEST, Manifest, Span, differences, refuse
from classroomkd.bank.rows import RowStore
from classroomkd.errors import UserError

__all__ = ["Merged", "merge", "told_apart"]


@dataclass(frozen=True)
class Merged:
    """Rows that were added, and damaged ones that were left out."""

    added: int
    damaged: int


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Copy to the store ``into``, which may not exist yet, those rows of the stores ``sources`` that are good there and
    not present here. The sources stay as they are.

    Raises:
        UserError: a source holds answers to another question (the difference is said) or is not whole; nothing is
            merged then. Too little space for all rows of a part; what was merged stays.
        RunStopped: no space left; what was merged stays.
    """
    others = [folder for folder in sources if folder.resolve() != into.resolve()]
    manifests = [Manifest.read(folder) for folder in others]
    if not manifests:
        return Merged(0, 0)
    target = Manifest.read(into) if (into / MANIFEST).exists() else replace(manifests[0], parts=())
    for folder, manifest in zip(others, manifests, strict=True):
        refuse(folder, target, manifest)
        RowStore.at(folder, used=False).close()  # says it when a file was cut short
    added = damaged = 0
    for folder, manifest in zip(others, manifests, strict=True):
        for span in manifest.parts:
            more, bad = _copy(folder, span, into, target)
            added, damaged = added + more, damaged + bad
    return Merged(added, damaged)


def _copy(folder: Path, span: Span, into: Path, target: Manifest) -> tuple[int, int]:
    """Row by row, those good there and missing here; how many they were, and how many were damaged."""
    added = damaged = 0
    with (
        RowStore.at(folder, used=False) as source,
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
            wanted[source.table.missing(view)] = False
            if not wanted.any():
                continue
            for positions, rows, _, good in source.table.blocks(view, wanted):
                count = int(good.sum())
                if count:
                    here.table.put(np.full(count, view), positions[good], rows[good])
                added, damaged = added + count, damaged + len(good) - count
        here.flush()
    return added, damaged


def told_apart(root: Path) -> list[str]:
    """One sentence for each mentor and kind of which several stores in ``root`` lack rows: what sets them apart."""
    lacking: dict[tuple[str, str], list[Path]] = {}
    for folder in stores(root):
        try:
            with RowStore.at(folder, used=False) as store:
                if store.count() < store.views * store.samples:
                    lacking.setdefault((str(store.key.get("mentor")), store.kind), []).append(folder)
        except UserError:
            continue  # it is not asked for
    sentences = []
    for (mentor, kind), (first, *others) in lacking.items():
        if others:
            mine = Manifest.read(first)
            apart = "; ".join(f"{other.name} {differences(mine, Manifest.read(other))}" for other in others)
            sentences.append(
                f"mentor '{mentor}' has {1 + len(others)} incomplete stores of {kind}, which are not mixed: beside "
                f"{first.name}, {apart}"
            )
    return sentences
