"""Inspecting, verifying and removing stores."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classroomkd.bank.codec import TopK, codec
from classroomkd.bank.files import PartFiles
from classroomkd.bank.locks import storing
from classroomkd.bank.manifest import MANIFEST, Manifest
from classroomkd.bank.rows import RowStore
from classroomkd.errors import UserError

__all__ = ["Info", "Removed", "Verified", "gc", "info", "stores", "verify"]

_OURS = re.compile(r"manifest\.json|\.manifest\.json\.\w+\.tmp|\.lock|filled\.json|(rows|sums)-\d{5}\.bin(\.tmp)?")
_LOOKED_AT = 4096  # rows that an estimate of what top-k leaves out reads
_GOING = ".removed-"  # a folder that gc has begun to remove


@dataclass(frozen=True)
class Info:
    """What a store holds.

    Attributes:
        folder, kind, views, samples, codec, parts, key, software: as in its manifest (``parts`` as position ranges).
        rows: rows that are there; of ``wanted`` = views x samples.
        nbytes: bytes of the files of all samples when full; ``on_disk``: bytes they take now.
        left_out: of a top-k store with rows: the mean probability at T = 1 of the classes outside the k kept.
    """

    folder: Path
    key: Mapping[str, Any]
    kind: str
    views: int
    samples: int
    codec: str
    parts: tuple[tuple[int, int], ...]
    rows: int
    wanted: int
    nbytes: int
    on_disk: int
    software: Mapping[str, str]
    left_out: float | None = None


@dataclass(frozen=True)
class Verified:
    """Rows of a store by state, each in one, and what is wrong with its files.

    With ``repair``, ``damaged`` rows are not there any more, and rows lost in a cut file count among them.
    """

    folder: Path
    good: int
    missing: int
    damaged: int
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Nothing is damaged; rows may be missing."""
        return not self.damaged and not self.problems


@dataclass(frozen=True)
class Removed:
    """Folders that gc removed (or would), the bytes they took, and folders it left since they hold other files."""

    folders: tuple[Path, ...]
    nbytes: int
    left: tuple[Path, ...]


def stores(root: Path) -> list[Path]:
    """The folders of all stores directly in ``root``, sorted by name."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if (p / MANIFEST).is_file() and not p.name.startswith("."))


def info(folder: Path) -> Info:
    """What is in the store ``folder``, by its manifest and checksums; rows are read of top-k alone, 4,096 at most.

    Raises:
        UserError: no store there, or its files are not whole.
    """
    with RowStore.at(folder, used=False) as store:
        about = store.manifest
        return Info(
            folder=folder,
            key=about.key,
            kind=about.kind,
            views=about.views,
            samples=about.samples,
            codec=about.codec,
            parts=tuple((span.first, span.last) for span in about.parts),
            rows=store.count(),
            wanted=about.views * about.samples,
            nbytes=about.views * about.samples * (store.codec.row_bytes + 4),
            on_disk=sum(_on_disk(folder / name) for span in about.parts for name in (span.rows, span.sums)),
            software=about.software or {},
            left_out=_left_out(store),
        )


def _left_out(store: RowStore) -> float | None:
    if not isinstance(store.codec, TopK):
        return None
    shares, looked, everyone = [torch.zeros(0)], 0, np.arange(store.samples)
    for view in range(store.views):
        there = np.flatnonzero(store.table.checksums(np.full_like(everyone, view), everyone))
        there = there[:: max(len(there) // _LOOKED_AT, 1)][: _LOOKED_AT - looked]
        rows, good = store.table.read(np.full_like(there, view), there)
        shares.append(store.codec.left_out(torch.from_numpy(rows[good])))
        looked += len(there)
        if looked == _LOOKED_AT:
            break
    left = torch.cat(shares)
    return left.double().mean().item() if len(left) else None


def verify(folder: Path, repair: bool = False) -> Verified:
    """Read every row of a store and compare it with its checksum.

    Args:
        folder: the store.
        repair: mark damaged rows as not there and give cut files their size again, so that filling asks them anew.

    Raises:
        UserError: no store there, or (``repair``) it cannot be written.
    """
    manifest = Manifest.read(folder)
    good = damaged = 0
    problems: list[str] = []
    if repair:
        store = RowStore.at(folder, write=True)
    else:
        row_bytes, parts = codec(manifest.codec).row_bytes, []
        for span in manifest.parts:
            try:
                part = PartFiles(folder, span, manifest.views, row_bytes, write=False, lenient=True)
            except UserError as error:
                problems.append(str(error))
                continue
            problems += part.problems
            parts.append(part)
        store = RowStore(folder, manifest, parts, write=False, mapped=False)
    with store:
        damaged += store.mended
        for view in range(store.views):
            for positions, _, sums, fits in store.table.blocks(view):
                bad = ~fits & (sums != 0)
                good += int(np.count_nonzero(fits))
                if bad.any():
                    damaged += int(np.count_nonzero(bad))
                    if repair:
                        lost = positions[bad]
                        store.table.forget(np.full_like(lost, view), lost)
        wanted = store.views * store.samples
    return Verified(folder, good, wanted - good - damaged, damaged, tuple(problems))


def gc(
    root: Path, *, keep: Collection[str] | None = None, keep_days: float | None = None, dry_run: bool = False
) -> Removed:
    """Remove the stores directly in ``root`` that nothing asks for any more.

    A store goes when its folder's name is not in ``keep`` (if given) and it was opened or written last
    more than ``keep_days`` days ago (if given). A folder that is no store, is a link, or holds any file that is not the
    bank's is never touched. A process that has a store open goes on reading it.

    Args:
        root: the folder of stores.
        keep: names of folders (``<mentor>-<digest16>``) that stay.
        keep_days: days.
        dry_run: only say what would go.

    Raises:
        UserError: neither ``keep`` nor ``keep_days`` is given, ``keep_days`` is negative or no number, or a folder
            cannot be removed.
    """
    if keep is None and keep_days is None:
        raise UserError("bank gc: say what may go: keep_days=N, or the stores to keep")
    if keep_days is not None and not 0 <= keep_days < math.inf:
        raise UserError(f"bank gc: keep_days is {keep_days:g}; give a finite number of days, 0 or more")
    gone, left, freed = [], [], 0
    for folder in stores(root):
        if folder.name in (keep or ()) or (keep_days is not None and _age(folder) < keep_days * 86400):
            continue
        if folder.is_symlink() or any(not _OURS.fullmatch(p.name) or p.is_dir() for p in folder.iterdir()):
            left.append(folder)
            continue
        gone.append(folder)
        freed += sum(_on_disk(path) for path in folder.iterdir())
        if not dry_run:
            with storing(folder):
                # Renamed first: what is half removed can never be taken for a store.
                going = folder.rename(folder.with_name(f"{_GOING}{folder.name}-{os.getpid()}"))
                _remove(going)
    if not dry_run and root.is_dir():
        for rest in [p for p in root.iterdir() if p.name.startswith(_GOING) and p.is_dir() and not p.is_symlink()]:
            _remove(rest)
    return Removed(tuple(gone), freed, tuple(left))


def _remove(folder: Path) -> None:
    """Delete the bank's own files of a folder, then the folder if nothing else is in it."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _age(folder: Path) -> float:
    """Seconds since a store was opened or written; who opens it touches the lock."""
    return time.time() - max(p.stat().st_mtime for p in (folder, *folder.iterdir()))


def _on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0
