"""Pixels that stay in their files and are decoded when asked for, by a pool of threads.

Pillow decodes outside Python's lock, so threads suffice and nothing is pickled between processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classroomkd.data import decode
from classroomkd.data.images import Device, ReadPixels
from classroomkd.errors import UserError

__all__ = ["FilePixels", "pool_size"]


def pool_size() -> int:
    """Decoding threads: the cores this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores))


class FilePixels(ReadPixels):
    """The images in ``paths`` (relative to ``root``), each brought to ``shape`` (C, H, W) by the geometry rule
    ``resize`` with ``size``."""

    decodes = True

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        *,
        size: int | None,
        resize: str,
        shape: tuple[int, int, int],
        device: Device = "cpu",
    ) -> None:
        super().__init__(shape, device)
        self.root = Path(root)
        self.paths = tuple(paths)
        self.size, self.resize = size, resize
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: Tensor) -> Tensor:
        """Decode the images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``.

        Raises:
            UserError: naming the file, when one cannot be decoded.
        """
        rows = index.tolist()
        batch = np.empty((len(rows), *self.shape), np.uint8)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(pool_size(), thread_name_prefix="decode")
        for _ in self._pool.map(lambda slot: self._into(batch, slot, rows[slot]), range(len(rows))):
            pass
        return self._moved(torch.from_numpy(batch))

    def _into(self, batch: np.ndarray, slot: int, row: int) -> None:
        path = self.root / self.paths[row]
        try:
            image = decode.decode(path, self.size, self.resize)
        except decode.DecodeError as error:
            raise UserError(
                f"data: {path} cannot be decoded: {error}. Mend or remove it (data.unreadable: skip leaves such"
                " files out when they are found before training)"
            ) from error
        if image.shape != self.shape:
            raise UserError(
                f"data: {path} is now {image.shape}, it was {self.shape} when the folder was read; set data.size"
            )
        batch[slot] = image

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pool": None}
