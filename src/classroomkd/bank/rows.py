"""One mentor's answers of one kind, a row for every (view, position): the bank's store.

A row's address is computed from its view and position. Each row has a checksum in a file of its own (see
``classroomkd.bank.checksum``); 0 means "not there". Rows are written before their checksums, so no journal is needed:
after a kill, a torn write, two writers at once, a flipped bit or a cut file, a row either fits its checksum or is asked
again.

Shapes: B rows of a request, N positions (samples of the student's training part), V views. Everything is on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from classroomkd.bank.allocate import extended
from classroomkd.bank.codec import Codec, Dense
from classroomkd.bank.codec import codec as codec_of
from classroomkd.bank.files import Bytes, PartFiles
from classroomkd.bank.locks import locked, touch
from classroomkd.bank.manifest import MANIFEST, Manifest, refuse
from classroomkd.bank.table import Masks, Table

__all__ = ["RowStore"]


class RowStore:
    """See the module; made by :meth:`open` or :meth:`at`. Pickles as its arguments (workers open it anew).

    Attributes:
        folder: where it lies.
        manifest: what it is; ``key``, ``kind``, ``views`` and ``samples`` are its.
        codec: the form of its rows.
        writable: rows can be added.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        parts: list[PartFiles],
        *,
        write: bool,
        mapped: bool | None,
    ) -> None:
        self.folder, self.manifest, self.writable = folder, manifest, write
        self.key, self.kind, self.views, self.samples = manifest.key, manifest.kind, manifest.views, manifest.samples
        self.codec: Codec = codec_of(manifest.codec)
        self.table = Table(parts, manifest.views, manifest.samples, self.codec.row_bytes, manifest.salt)
        self._mapped = mapped

    @classmethod
    def open(
        cls,
        folder: Path,
        key: Mapping[str, Any],
        *,
        kind: str,
        views: int,
        samples: int,
        codec: Codec,
        write: bool,
        first: int = 0,
        last: int | None = None,
        mapped: bool | None = None,
    ) -> Self:
        """The store in ``folder``, which answers exactly this question.

        Args:
            folder: of this store alone, see :func:`classroomkd.bank.manifest.store_folder`.
            key: everything the answers depend on, as JSON.
            kind: ``logits`` or a tap.
            views: V.
            samples: N.
            codec: form of a row.
            write: also create what is absent of positions ``first`` up to, not including, ``last`` (None: N).
            first: see ``write``; a machine that shares no disk with others fills a range of its own.
            last: see ``write``.
            mapped: read single rows through a map, or by ``pread``; None: a map for files of at most 32 MB. A map is
                faster by 40 microseconds per 64 rows, and what it touched counts as the process's resident memory.

        Raises:
            UserError: the folder holds answers to another question (the difference is said), is not there (reading),
                has files of a wrong size (reading), cannot be written, or the disk has too little space.
        """
        wanted = Manifest(dict(key), kind, views, samples, codec.definition)
        last = samples if last is None else last
        assert 0 <= first <= last <= samples, (first, last, samples)
        if not write:
            manifest = Manifest.read(folder)
            refuse(folder, wanted, manifest)
            return cls._opened(folder, manifest, write=False, mapped=mapped)
        if (folder / MANIFEST).exists():
            refuse(folder, wanted, Manifest.read(folder))
        with locked(folder):
            manifest = Manifest.read(folder) if (folder / MANIFEST).exists() else wanted
            refuse(folder, wanted, manifest)
            manifest = extended(folder, manifest, codec.row_bytes, first, last)
            return cls._opened(folder, manifest, write=True, mapped=mapped)

    @classmethod
    def at(cls, folder: Path, *, write: bool = False, mapped: bool | None = None, used: bool = True) -> Self:
        """The store in ``folder``, whatever question it answers; see :meth:`open`.

        ``used``: leave a mark for gc that somebody needs it; not from those who only look.
        """
        manifest = Manifest.read(folder)
        if not write:
            return cls._opened(folder, manifest, write=False, mapped=mapped, used=used)
        with locked(folder):
            return cls._opened(folder, Manifest.read(folder), write=True, mapped=mapped)

    @classmethod
    def _opened(cls, folder: Path, manifest: Manifest, *, write: bool, mapped: bool | None, used: bool = True) -> Self:
        if used:
            touch(folder)
        row_bytes = codec_of(manifest.codec).row_bytes
        parts = [
            PartFiles(folder, span, manifest.views, row_bytes, write=write, mapped=mapped) for span in manifest.parts
        ]
        return cls(folder, manifest, parts, write=write, mapped=mapped)

    @property
    def nbytes(self) -> int:
        """Bytes of the store's files when all rows are there, checksums (4 a row) included."""
        return sum(sum(part.sizes) for part in self.table.parts)

    @property
    def damaged(self) -> int:
        """Rows found so far whose checksum did not fit; a writer marks them as not there."""
        return self.table.damaged

    @property
    def mended(self) -> int:
        """Rows dropped on opening because a file had been cut short."""
        return sum(part.mended for part in self.table.parts)

    # Single rows

    def read(self, views: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rows by (view, position), their checksums verified.

        Args:
            views: (B,) int64.
            positions: (B,) int64.

        Returns:
            The answers (B, *shape), NaN where there is none, and which of them there are, (B,) bool. A row that does
            not fit its checksum is not there, counts in ``damaged``, and a writer marks it to be asked again.
        """
        content, ok = self.table.read(views.numpy(), positions.numpy())
        return self._decoded(content, ok), torch.from_numpy(ok)

    def write(self, views: Tensor, positions: Tensor, values: Tensor) -> None:
        """Store the answers ``values`` (B, *shape) of (``views`` (B,), ``positions`` (B,)); they may be on any device.

        Raises:
            RunStopped: no space is left; rows that were there before stay good.
        """
        assert self.writable, f"{self.folder} is open for reading"
        v, p = views.numpy(), positions.numpy()
        rows = self.codec.encode(values).to("cpu").numpy()
        self.table.put(v, p, rows)

    # Whole views

    def slab(self, view: int, out: Tensor, into: Tensor | None = None) -> Tensor:
        """Read a view from its beginning to its end, in blocks of 1 MB, checksums verified.

        Args:
            view: which.
            out: receives the answers, any floating type, strides and device: (N, *shape), position by position; with
                ``into``, as many rows as that names. In one piece, of the stored type and on the CPU it is read into
                directly.
            into: (N,) int64: the row of ``out`` for each position, -1 for positions that are not wanted.

        Returns:
            Which positions were read, (N,) bool. Rows of ``out`` whose position is wanted and not there become NaN.
        """
        assert out.shape[1:] == self.codec.shape, (tuple(out.shape), self.codec.shape)
        assert not out.requires_grad
        ok, table = np.zeros(self.samples, bool), self.table
        targets = torch.arange(self.samples) if into is None else into.to("cpu")
        if table.covered < self.views * self.samples:  # positions of no part
            out.index_fill_(0, targets[targets >= 0].to(out.device), torch.nan)
        wanted = None if into is None else (targets >= 0).numpy()
        direct = _bytes(out) if into is None and isinstance(self.codec, Dense) else None
        for positions, content, sums, good in table.blocks(view, wanted, direct):
            ok[positions] = good
            values = self._decoded(content, good)
            if not good.all():
                table.mark(~good & (sums != 0), np.full(len(positions), view), positions)
            if direct is not None:
                continue
            if into is None:
                out[int(positions[0]) : int(positions[-1]) + 1].copy_(values)
            else:
                index = targets[torch.from_numpy(positions)].to(out.device)
                out.index_copy_(0, index, values.to(out.device, out.dtype))
        return torch.from_numpy(ok)

    def read_ahead(self, view: int) -> None:
        """Tell the system that this view is wanted soon; nothing is read into this process."""
        for part in self.table.parts:
            part.read_ahead(view)

    def missing(self, view: int, first: int = 0, last: int | None = None) -> Tensor:
        """Positions (k,) int64, rising, of the store's parts in ``first``..``last`` whose row in ``view`` is not
        there."""
        positions = self.table.missing(view)
        last = self.samples if last is None else last
        return torch.from_numpy(positions[(positions >= first) & (positions < last)])

    def count(self) -> int:
        """How many rows are there, by their checksums."""
        return self.table.count()

    # Keeping

    def forget(self, views: Tensor, positions: Tensor) -> None:
        """Mark rows (B,), (B,) as not there, so that they are asked again."""
        self.table.forget(views.numpy(), positions.numpy())

    def flush(self) -> None:
        """Ask the disk to keep what was written (fsync); only a power cut needs it."""
        for part in self.table.parts:
            part.flush()

    def close(self) -> None:
        """Give the files back; the store cannot be used afterwards."""
        for part in self.table.parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.folder, self.manifest, self.writable, self._mapped)

    def __repr__(self) -> str:
        about = f"{self.kind}, {self.views} views of {self.samples} samples, {self.codec.definition}"
        return f"RowStore({self.folder.name}: {about})"

    def _decoded(self, content: Bytes, ok: Masks) -> Tensor:
        if not len(content):
            return torch.empty(0, *self.codec.shape, dtype=self.codec.dtype)
        values = self.codec.decode(torch.from_numpy(content))
        if not ok.all():
            values[torch.from_numpy(~ok)] = torch.nan
        return values


def _bytes(out: Tensor) -> Bytes | None:
    """The memory of half-precision answers (N, …) as (N, bytes of a row), where that can be written to as it is."""
    if out.dtype != Dense.dtype or out.device.type != "cpu" or not out.is_contiguous() or not len(out):
        return None
    content: Bytes = out.view(len(out), -1).view(torch.uint8).numpy()
    return content


def _again(cls: type[RowStore], folder: Path, manifest: Manifest, write: bool, mapped: bool | None) -> RowStore:
    refuse(folder, manifest, Manifest.read(folder))
    return cls.at(folder, write=write, mapped=mapped)
