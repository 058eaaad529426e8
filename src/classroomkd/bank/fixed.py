"""Answers of mentors to V fixed views of every training sample: fp16 ``(V, N, C)`` per mentor, memory-mapped.

Features lie in files of their own, ``(V, N, channels, H, W)`` or ``(V, N, channels)`` per mentor and tap.

The file's name is a hash of everything the answers depend on (weights, preprocessing, data, view definition), so an
answer to another question is never found.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from classroomkd._files import writing
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views import Views

__all__ = ["FixedBank", "answer_file", "fill", "fill_all"]


def answer_file(folder: Path, key: dict[str, Any]) -> Path:
    """Where answers with this key live; equal keys, equal file."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:32]}.npy"


def fill(
    path: Path,
    ask: Callable[[Tensor], Tensor],
    part: Part,
    views: Views,
    classes: int,
    batch_size: int = 256,
) -> int:
    """:func:`fill_all` for logits ``(B, classes)`` alone."""
    return fill_all({"logits": path}, lambda pixels: {"logits": ask(pixels)}, part, views, batch_size)


def fill_all(
    paths: Mapping[str, Path],
    ask: Callable[[Tensor], Mapping[str, Tensor]],
    part: Part,
    views: Views,
    batch_size: int = 256,
) -> int:
    """Write one mentor's answers to every view of every sample, unless they are there already.

    Args:
        paths: where each kind of answer goes (``logits``, taps), from :func:`answer_file`.
        ask: uint8 pixels ``(B, channels, H, W)`` to answers by kind, each ``(B, …)``.
        part: the samples, in the row order of the files.
        views: a finite view space; its ``count`` is V.
        batch_size: samples per forward.

    Returns:
        The number of forward passes made (0 when all files were there).

    Raises:
        UserError: a view space without bound, or a disk without room; the size needed is said.
    """
    wanted = {kind: path for kind, path in paths.items() if not path.exists()}
    if not wanted:
        return 0
    if views.count is None:
        raise UserError(f"bank: the view space '{views.name}' has no bound; use views=V or off")
    rows: dict[str, np.memmap[Any, Any]] = {}
    passes = 0
    with ExitStack() as stack:
        for view in range(views.count):
            for start in range(0, len(part), batch_size):
                index = torch.arange(start, min(start + batch_size, len(part)))
                pixels, _, ids = part.batch(index)
                said = ask(views.apply(pixels, ids, torch.full_like(ids, view)))
                if not rows:
                    shapes = {kind: (views.count, len(part), *said[kind].shape[1:]) for kind in wanted}
                    _room(next(iter(wanted.values())).parent, shapes)
                    for kind, path in wanted.items():
                        rows[kind] = stack.enter_context(_array(path, shapes[kind]))
                for kind, array in rows.items():
                    array[view, start : start + len(index)] = said[kind].to("cpu", torch.float16).numpy()
                passes += 1
    return passes


@contextmanager
def _array(path: Path, shape: tuple[int, ...]) -> Iterator[np.memmap[Any, Any]]:
    """An fp16 array that is written in place beside its file and takes the file's name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with writing(partial):
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        with partial.open("r+b") as file:  # a mapped file that meets a full disk kills the process: reserve it first
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    try:
        yield array
        array.flush()
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _room(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    need, free = sum(2 * math.prod(shape) for shape in shapes.values()), shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"bank: these answers take {need / 2**30:.1f} GiB, {folder} has {free / 2**30:.1f}; use fewer views, "
            "bank=off, or another cache="
        )


class FixedBank:
    """Read stored answers of all mentors; an :class:`~classroomkd.classroom.AnswerStore`.

    Logits are held on the device; features are read from the files as they are asked for. A sample that is not in the
    bank gets NaN, never another sample's answer.

    Args:
        paths: one file of logits a mentor, in the order of the M axis.
        ids: ``(N,)`` sample ids in the files' row order.
        device: where answers are wanted.
        features: by tap, one file a mentor.
        pooled: taps whose stored maps are to be averaged over space.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        ids: Tensor,
        device: torch.device,
        features: Mapping[str, Sequence[Path]] | None = None,
        pooled: Collection[str] = (),
    ) -> None:
        maps = [np.load(p, mmap_mode="r", allow_pickle=False) for p in paths]
        count, samples, classes = maps[0].shape
        # (V, N + 1, M, C): a sample's answers lie side by side; the last row is nobody's
        stacked = np.full((count, samples + 1, len(maps), classes), np.nan, np.float16)
        for m, answers in enumerate(maps):
            stacked[:, :samples, m] = answers
        self.answers = torch.from_numpy(stacked).to(device)
        self.row = torch.full((int(ids.max()) + 1,), -1, dtype=torch.int64, device=device)
        self.row[ids.to(device)] = torch.arange(len(ids), device=device)
        # mode "c": torch wants memory it could write to; nothing is written.
        self._features = {
            tap: [torch.from_numpy(np.load(p, mmap_mode="c", allow_pickle=False)) for p in found]
            for tap, found in (features or {}).items()
        }
        self._pooled = frozenset(pooled)
        self.shapes: Mapping[str, tuple[tuple[int, ...], ...]] = {
            tap: tuple(tuple(x.shape[2:3] if tap in self._pooled else x.shape[2:]) for x in found)
            for tap, found in self._features.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of stored answers, those in files included."""
        features = [x for found in self._features.values() for x in found]
        return sum(x.numel() * x.element_size() for x in (self.answers, *features))

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, C)`` float32 answers for ``(B,)`` sample ids and view slots."""
        return self.answers[views, self.row[ids]].permute(1, 0, 2).float()

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        """All mentors' float32 activations at a tap, ``(B, channels, H, W)`` or ``(B, channels)``."""
        row = self.row[ids]
        at = (views.to("cpu"), row.to("cpu"))
        found = []
        for stored in self._features[tap]:
            x = stored[at].to(row.device).float()
            x = torch.where((row < 0).view(-1, *[1] * (x.dim() - 1)), torch.nan, x)
            found.append(x.mean((2, 3)) if tap in self._pooled and x.dim() == 4 else x)
        return tuple(found)
