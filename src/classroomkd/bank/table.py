"""The rows of a store as bytes, over all its parts: their addresses and checksums. What a row means is not known here.

Shapes: B rows of a request, N positions, V views; ``v`` and ``p`` are views and positions (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from classroomkd.bank.checksum import row_sums
from classroomkd.bank.files import Bytes, Checksums, Indices, PartFiles

__all__ = ["Masks", "Table"]

Masks = npt.NDArray[np.bool_]


class Table:
    """Rows of ``parts``, which do not overlap and rise.

    Attributes:
        damaged: rows found so far whose checksum did not fit.
    """

    def __init__(self, parts: Sequence[PartFiles], views: int, samples: int, row_bytes: int, salt: int) -> None:
        self.parts, self.views, self.samples, self.row_bytes, self._salt = parts, views, samples, row_bytes, salt
        self.damaged = 0
        self._firsts = np.array([part.span.first for part in parts], np.int64)
        self._lasts = np.array([part.span.last for part in parts], np.int64)
        whole = len(parts) == 1 and len(parts[0].span) == samples
        self._single = parts[0] if whole else None  # rows are then found without looking for their part

    @property
    def covered(self) -> int:
        """How many rows there can be: V times the positions of the parts."""
        return sum(part.count for part in self.parts)

    # Single rows

    def checksums(self, v: Indices, p: Indices) -> Checksums:
        """The checksums (B,), 0 where there is no part."""
        self._check(v, p)
        if self._single is not None:
            return self._single.checksums(v * self.samples + p)
        sums = np.zeros(len(p), np.int32)
        for part, rows, at in self._addresses(v, p):
            sums[rows] = part.checksums(at)
        return sums

    def read(self, v: Indices, p: Indices) -> tuple[Bytes, Masks]:
        """Rows (B, row_bytes) and which of them fit their checksums (B,). Others are counted and, where they have a
        checksum, marked (by a writer) as not there."""
        self._check(v, p)
        addresses = v * self.samples + p
        if self._single is not None:
            sums, content = self._single.checksums(addresses), self._single.rows(addresses)
        else:
            sums, content = np.zeros(len(p), np.int32), np.zeros((len(p), self.row_bytes), np.uint8)
            for part, rows, at in self._addresses(v, p):
                sums[rows], content[rows] = part.checksums(at), part.rows(at)
        ok: Masks = row_sums(content, addresses, self._salt) == sums
        if not ok.all():
            self.mark(~ok & (sums != 0), v, p)
        return content, ok

    def put(self, v: Indices, p: Indices, rows: Bytes) -> None:
        """Store ``rows`` (B, row_bytes) and then their checksums."""
        self._check(v, p)
        sums, written = row_sums(rows, v * self.samples + p, self._salt), 0
        for part, which, at in self._addresses(v, p):
            order = np.argsort(at, kind="stable")
            part.put(at[order], rows[which][order], sums[which][order])
            written += len(at)
        assert written == len(p), "the store has no part for some of these positions"

    def forget(self, v: Indices, p: Indices) -> None:
        """Mark rows as not there."""
        self._check(v, p)
        for part, _, at in self._addresses(v, p):
            part.forget(at)

    def mark(self, damaged: Masks, v: Indices, p: Indices) -> None:
        """Count the rows ``damaged`` (B,) of a request and, as a writer, have them asked again."""
        if count := int(np.count_nonzero(damaged)):
            self.damaged += count
            if self.parts[0].write:
                self.forget(v[damaged], p[damaged])

    # Whole views

    def blocks(
        self, view: int, wanted: Masks | None = None, into: Bytes | None = None
    ) -> Iterator[tuple[Indices, Bytes, Checksums, Masks]]:
        """A view in pieces of at most 1 MB: positions (k,), rows (k, row_bytes), their checksums (k,), and which rows
        are good (k,).

        Only positions of ``wanted`` (N,), all when None. The rows are pieces of ``into`` (N, row_bytes), by position,
        or else lie in memory that is used again for the next piece.
        """
        assert 0 <= view < self.views, (view, self.views)
        for part in self.parts:
            sums, first = part.view_checksums(view), part.span.first
            for start, content in part.blocks(view, None if into is None else into[first : part.span.last]):
                positions = np.arange(first + start, first + start + len(content))
                own = sums[start : start + len(content)]
                if wanted is not None:
                    chosen = np.flatnonzero(wanted[positions])
                    if not len(chosen):
                        continue
                    positions, content, own = positions[chosen], content[chosen], own[chosen]
                yield positions, content, own, row_sums(content, view * self.samples + positions, self._salt) == own

    def missing(self, view: int) -> Indices:
        """Positions (k,), rising, that a part has and whose row in ``view`` is not there."""
        positions = [np.flatnonzero(part.view_checksums(view) == 0) + part.span.first for part in self.parts]
        return np.concatenate([np.zeros(0, np.int64), *positions])

    def count(self) -> int:
        """How many rows are there, by their checksums."""
        return sum(int(np.count_nonzero(part.view_checksums(v))) for part in self.parts for v in range(self.views))

    # Inside

    def _check(self, v: Indices, p: Indices) -> None:
        if len(p):
            # Read as unsigned, a negative number is huge: one comparison checks both ends.
            assert np.maximum.reduce(v.view(np.uint64)) < self.views, f"a view outside 0..{self.views - 1}"
            assert np.maximum.reduce(p.view(np.uint64)) < self.samples, f"a position outside 0..{self.samples - 1}"

    def _addresses(self, v: Indices, p: Indices) -> Iterator[tuple[PartFiles, slice | Indices, Indices]]:
        """Each part that has some of the rows, which of the request they are, and where in the part they lie."""
        if self._single is not None:
            yield self._single, slice(None), v * self.samples + p
            return
        if not self.parts:
            return
        which = np.searchsorted(self._firsts, p, side="right") - 1
        inside = (which >= 0) & (p < self._lasts[which])
        for index in np.unique(which[inside]).tolist():
            rows = np.flatnonzero(inside & (which == index))
            span = self.parts[index].span
            yield self.parts[index], rows, v[rows] * len(span) + (p[rows] - span.first)
