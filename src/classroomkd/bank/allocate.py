"""New parts of a store: their space is asked for before anything is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from classroomkd._files import amount
from classroomkd.bank.files import PartFiles
from classroomkd.bank.manifest import MANIFEST, Manifest, Span
from classroomkd.errors import UserError

__all__ = ["check_space", "extended"]


def extended(folder: Path, manifest: Manifest, row_bytes: int, first: int, last: int) -> Manifest:
    """The manifest with parts for all of ``first``..``last``, their files made; the caller holds the lock."""
    gaps, at = [], first
    for span in manifest.parts:
        if span.last > at and span.first < last:
            gaps.append((at, min(span.first, last)))
            at = max(at, span.last)
    gaps = [(a, b) for a, b in [*gaps, (at, last)] if a < b]
    if not gaps:
        if not (folder / MANIFEST).exists():
            manifest.write(folder)
        return manifest
    need = sum((b - a) * manifest.views * (row_bytes + 4) for a, b in gaps)
    check_space(folder, need)
    number = 1 + max((int(span.rows[5:10]) for span in manifest.parts), default=-1)  # of files that no part names
    spans = [Span(a, b, f"rows-{n:05d}.bin", f"sums-{n:05d}.bin") for n, (a, b) in enumerate(gaps, number)]
    for span in spans:
        PartFiles(folder, span, manifest.views, row_bytes, write=True, fresh=True).close()
    manifest = replace(manifest, parts=tuple(sorted((*manifest.parts, *spans), key=lambda span: span.first)))
    manifest.write(folder)  # last: files that no manifest names are nobody's, and are emptied when their turn comes
    return manifest


def check_space(folder: Path, need: int) -> None:
    """Raise ``UserError`` unless ``need`` bytes are free where ``folder`` is."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"bank: these answers take {amount(need)}, {folder} has {amount(free)} free; use fewer views, bank=off, or "
            "another cache="
        )
