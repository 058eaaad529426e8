"""Answers of mentors to V fixed views of every training sample: fp16 ``(V, N, C)`` per mentor, memory-mapped.

The file's name is a hash of everything the answers depend on (weights, preprocessing, data, view definition), so an
answer to another question is never found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from classroomkd._files import atomic_write
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views import Views

__all__ = ["FixedBank", "answer_file", "fill"]


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
    """Write one mentor's answers to every view of every sample, unless they are there already.

    Args:
        path: from :func:`answer_file`.
        ask: uint8 pixels ``(B, C, H, W)`` to logits ``(B, classes)``.
        part: the samples, in the row order of the file.
        views: a finite view space; its ``count`` is V.
        classes: C.
        batch_size: samples per forward.

    Returns:
        The number of forward passes made (0 when the file was there).
    """
    if path.exists():
        return 0
    if views.count is None:
        raise UserError(f"bank: the view space '{views.name}' has no bound; use views=V or off")
    rows = np.empty((views.count, len(part), classes), np.float16)
    passes = 0
    for view in range(views.count):
        for start in range(0, len(part), batch_size):
            index = torch.arange(start, min(start + batch_size, len(part)))
            pixels, _, ids = part.batch(index)
            said = ask(views.apply(pixels, ids, torch.full_like(ids, view)))
            rows[view, start : start + len(index)] = said.to("cpu", torch.float16).numpy()
            passes += 1
    with atomic_write(path) as file:
        np.save(file, rows, allow_pickle=False)
    return passes


class FixedBank:
    """Read stored answers of all mentors, held on the device; an :class:`~classroomkd.classroom.AnswerStore`.

    A sample that is not in the bank gets NaN, never another sample's answer.

    Args:
        paths: one file a mentor, in the order of the M axis.
        ids: ``(N,)`` sample ids in the files' row order.
        device: where answers are wanted and kept.
    """

    def __init__(self, paths: Sequence[Path], ids: Tensor, device: torch.device) -> None:
        maps = [np.load(p, mmap_mode="r", allow_pickle=False) for p in paths]
        count, samples, classes = maps[0].shape
        # (V, N + 1, M, C): a sample's answers lie side by side; the last row is nobody's
        stacked = np.full((count, samples + 1, len(maps), classes), np.nan, np.float16)
        for m, answers in enumerate(maps):
            stacked[:, :samples, m] = answers
        self.answers = torch.from_numpy(stacked).to(device)
        self.row = torch.full((int(ids.max()) + 1,), -1, dtype=torch.int64, device=device)
        self.row[ids.to(device)] = torch.arange(len(ids), device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of stored answers."""
        return self.answers.numel() * self.answers.element_size()

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, C)`` float32 answers for ``(B,)`` sample ids and view slots."""
        return self.answers[views, self.row[ids]].permute(1, 0, 2).float()
