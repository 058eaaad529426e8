"""The two files of one part of a store, as bytes: rows ``[views][positions][row bytes]`` and the checksum of each row,
``[views][positions]``.

Reads go by ``pread`` or a read-only map, writes by ``pwrite`` into space that was reserved before: a full disk is an
error that can be caught, never a signal that kills. Files that were cut short are noticed before a map is touched.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
import weakref
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classroomkd._files import open_inside
from classroomkd.bank.locks import storing
from classroomkd.bank.manifest import Span
from classroomkd.errors import UserError

__all__ = ["PartFiles"]

BLOCK = 1 << 20  # bytes read at a time; a piece of this size stays in a core's own cache
RESERVE = 4 << 20  # bytes reserved at a time
MAPPED = 32 << 20  # rows of a part up to this size are read through a map
AHEAD = 128 << 10  # bytes announced at a time: of one call Linux reads no more than the device's own window

_NO_RESERVE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}

Bytes = npt.NDArray[np.uint8]
Checksums = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]

assert sys.byteorder == "little", "the bank's files are little-endian"


class PartFiles:
    """Rows and checksums of one :class:`Span`; ``at`` is ``view * len(span) + position - first`` throughout.

    Args:
        folder: where the files lie.
        span: their names and positions.
        views: V.
        row_bytes: bytes of one row.
        write: open for writing; files that are missing or of a wrong size are then made right, under the caller's lock.
        mapped: read single rows through a map (faster; what was touched counts as resident memory), or by ``pread``;
            None: a map when the rows take at most 32 MB.
        fresh: begin with empty files: the checksums' space is taken at once, that of rows when they are written.
        lenient: for maintenance: open files of any size; what lies behind the end reads as zeros.

    Attributes:
        mended: rows that were dropped because a file had been cut short.
        problems: with ``lenient``: what is wrong with the files' sizes.
    """

    def __init__(
        self,
        folder: Path,
        span: Span,
        views: int,
        row_bytes: int,
        *,
        write: bool,
        mapped: bool | None = None,
        fresh: bool = False,
        lenient: bool = False,
    ) -> None:
        self.span, self.views, self.row_bytes, self.write = span, views, row_bytes, write
        self.count = views * len(span)
        self.paths = (folder / span.rows, folder / span.sums)
        self.sizes = (self.count * row_bytes, self.count * 4)
        self.mended = 0
        self.problems: list[str] = []
        self.mapped = self.sizes[0] <= MAPPED if mapped is None else mapped
        self._maps: dict[int, tuple[mmap.mmap, Bytes]] = {}  # of rows (0) and checksums (1), made when they are read
        fds: list[int] = []
        self._close = weakref.finalize(self, _close, fds)
        for path in self.paths:
            with storing(path):
                if fresh:
                    # Not emptied in place: it may be one file with another store's (merges once linked files).
                    path.unlink(missing_ok=True)
                fds.append(open_inside(path, os.O_RDWR | os.O_CREAT) if write else _open(path))
        self.fds = fds
        self._reserved = np.zeros(-(-self.sizes[0] // RESERVE), bool)
        if fresh:
            self._resize()
            self._take_space(*self._sums, 0, self.sizes[1])
        elif write:
            self._mend()
        else:
            self._measure(lenient)

    def close(self) -> None:
        """Give files and maps back."""
        file_maps = [file_map for file_map, _ in self._maps.values()]
        self._maps.clear()
        for file_map in file_maps:
            with contextlib.suppress(BufferError):
                file_map.close()
        self._close()

    def flush(self) -> None:
        """Ask the disk to keep what was written: rows first, then checksums."""
        for path, fd in zip(self.paths, self.fds, strict=True):
            with storing(path):
                os.fsync(fd)

    # Single rows

    def checksums(self, at: Indices) -> Checksums:
        """The checksums (k,) of the rows ``at`` (k,)."""
        return self._map(1).view(np.int32).take(at)

    def rows(self, at: Indices) -> Bytes:
        """The rows ``at`` (k,) -> (k, row_bytes); a row that the file no longer has reads as zeros."""
        if self.mapped:
            return self._map(0).reshape(-1, self.row_bytes).take(at, axis=0)
        size = self.row_bytes
        content = bytearray().join(map(os.pread, repeat(self.fds[0]), repeat(size), (at * size).tolist()))
        if len(content) != len(at) * size:
            self._whole(0)
            pieces = map(os.pread, repeat(self.fds[0]), repeat(size), (at * size).tolist())
            content = bytearray().join(piece.ljust(size, b"\0") for piece in pieces)
        return np.frombuffer(content, np.uint8).reshape(-1, size)

    def put(self, at: Indices, rows: Bytes, sums: Checksums) -> None:
        """Write ``rows`` (k, row_bytes) and then their checksums ``sums`` (k,) ``at`` (k,), rising."""
        runs = self._runs(at)
        self._reserve(at, runs)
        for fd, path, size, content in ((*self._rows, self.row_bytes, rows), (*self._sums, 4, sums)):
            flat = np.ascontiguousarray(content).data.cast("B")
            with storing(path):
                for start, end in runs:
                    _pwrite(fd, flat[start * size : end * size], int(at[start]) * size)

    def forget(self, at: Indices) -> None:
        """Set the checksums ``at`` (k,) to 0, "not there"."""
        at = np.sort(at)
        with storing(self.paths[1]):
            for start, end in self._runs(at):
                _pwrite(self.fds[1], memoryview(bytes(4 * (end - start))), int(at[start]) * 4)

    # Whole views

    def view_checksums(self, view: int) -> Checksums:
        """The checksums (len(span),) of a view."""
        sums = np.zeros(len(self.span), np.int32)
        _pread(self.fds[1], sums.data.cast("B"), view * len(self.span) * 4)
        return sums

    def blocks(self, view: int, into: Bytes | None = None) -> Iterator[tuple[int, Bytes]]:
        """A view's rows in order: the first row's place in the span and (k, row_bytes) of at most 1 MB (one row at
        least): pieces of ``into`` (len(span), row_bytes), or else of memory that is used again for the next block."""
        step = max(BLOCK // self.row_bytes, 1)
        buffer = np.empty((min(step, len(self.span)), self.row_bytes), np.uint8) if into is None else into
        for start in range(0, len(self.span), step):
            count = min(step, len(self.span) - start)
            block = buffer[:count] if into is None else into[start : start + count]
            _pread(self.fds[0], block.data.cast("B"), (view * len(self.span) + start) * self.row_bytes)
            yield start, block

    def read_ahead(self, view: int) -> None:
        """Tell the system that this view is wanted soon; it waits where the disk's queue is full."""
        if hasattr(os, "posix_fadvise"):
            for fd, size in zip(self.fds, (self.row_bytes, 4), strict=True):
                length = len(self.span) * size
                with contextlib.suppress(OSError):
                    for start in range(0, length, AHEAD):
                        piece = min(AHEAD, length - start)
                        os.posix_fadvise(fd, view * length + start, piece, os.POSIX_FADV_WILLNEED)

    # Sizes and space

    @property
    def _rows(self) -> tuple[int, Path]:
        return self.fds[0], self.paths[0]

    @property
    def _sums(self) -> tuple[int, Path]:
        return self.fds[1], self.paths[1]

    def _resize(self) -> None:
        for path, fd, size in zip(self.paths, self.fds, self.sizes, strict=True):
            if os.fstat(fd).st_size != size:
                with storing(path):
                    os.ftruncate(fd, size)

    def _measure(self, lenient: bool) -> None:
        for path, fd, size in zip(self.paths, self.fds, self.sizes, strict=True):
            actual = os.fstat(fd).st_size
            if actual != size:
                problem = f"{path} has {actual} bytes where {size} belong (it was cut short or is not this store's)"
                if not lenient:
                    raise UserError(f"bank: {problem}; run classroomkd bank verify {path.parent} --repair")
                self.problems.append(problem)

    def _mend(self) -> None:
        """Give both files their sizes again; rows that were cut off count as not there."""
        sizes = zip(self.fds, (self.row_bytes, 4), strict=True)
        cut = min(self.count, *(os.fstat(fd).st_size // each for fd, each in sizes))
        self._resize()
        if cut < self.count:
            sums = np.zeros(self.count - cut, np.int32)
            _pread(self.fds[1], sums.data.cast("B"), cut * 4)
            self.mended += int(np.count_nonzero(sums))
            with storing(self.paths[1]):
                _pwrite(self.fds[1], memoryview(bytes(4 * len(sums))), cut * 4)

    def _whole(self, which: int) -> None:
        """A map must not be touched behind its file's end: that would kill the process."""
        if os.fstat(self.fds[which]).st_size < self.sizes[which]:
            if not self.write:
                raise UserError(f"bank: {self.paths[which]} was cut short while in use; fill the bank again")
            self._mend()

    def _map(self, which: int) -> Bytes:
        self._whole(which)
        if which not in self._maps:
            file_map = mmap.mmap(self.fds[which], self.sizes[which], access=mmap.ACCESS_READ)
            self._maps[which] = file_map, np.frombuffer(file_map, np.uint8)
        return self._maps[which][1]

    def _runs(self, at: Indices) -> list[tuple[int, int]]:
        """[start, end) of each stretch of neighbouring rows."""
        edges = (np.flatnonzero(np.diff(at) != 1) + 1).tolist()
        return list(zip([0, *edges], [*edges, len(at)], strict=True)) if len(at) else []

    def _reserve(self, at: Indices, runs: list[tuple[int, int]]) -> None:
        """Take the space of the blocks in which the rows lie, once per block."""
        size = self.row_bytes
        for start, end in runs:
            low, high = int(at[start]) * size // RESERVE, (int(at[end - 1]) * size + size - 1) // RESERVE
            for block in (np.flatnonzero(~self._reserved[low : high + 1]) + low).tolist():
                begin = block * RESERVE
                self._take_space(*self._rows, begin, min(RESERVE, self.sizes[0] - begin))
                self._reserved[block] = True

    def _take_space(self, fd: int, path: Path, start: int, length: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        with storing(path):
            try:
                os.posix_fallocate(fd, start, length)
            except OSError as error:
                if error.errno not in _NO_RESERVE:
                    raise


def _open(path: Path) -> int:
    """To be read; also through a link, but never a pipe, which would be waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, "it is no plain file", str(path))
    return fd


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()


def _pwrite(fd: int, content: memoryview, offset: int) -> None:
    while content:
        done = os.pwrite(fd, content, offset)
        content, offset = content[done:], offset + done


def _pread(fd: int, target: memoryview, offset: int) -> None:
    """Fill ``target``; behind the end of the file it gets zeros."""
    while target:
        done = os.preadv(fd, [target], offset)
        if not done:
            target[:] = bytes(len(target))
            return
        target, offset = target[done:], offset + done
