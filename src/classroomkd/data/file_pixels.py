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
from classroomkd.errors import UserError

__all__ = ["FilePixels", "pool_size"]

Device = torch.device | str


def pool_size() -> int:
    """Decoding threads: the cores this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores))


class FilePixels:
    """The images in ``paths`` (relative to ``root``), each brought to ``shape`` (C, H, W) by the geometry rule with
    ``size``."""

    decodes = True

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        *,
        size: int | None,
        shape: tuple[int, int, int],
        device: Device = "cpu",
    ) -> None:
        self.root = Path(root)
        self.paths = tuple(paths)
        self.size = size
        self._shape = shape
        self._device = torch.device(device)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image as fetched."""
        return self._shape

    @property
    def device(self) -> torch.device:
        """Where fetched images are."""
        return self._device

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: Tensor) -> Tensor:
        """Decode the images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``.

        Raises:
            UserError: naming the file, when one cannot be decoded.
        """
        rows = index.tolist()
        batch = np.empty((len(rows), *self._shape), np.uint8)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(pool_size(), thread_name_prefix="decode")
        for _ in self._pool.map(lambda slot: self._into(batch, slot, rows[slot]), range(len(rows))):
            pass
        images = torch.from_numpy(batch)
        if self._device.type == "cuda":
            return images.pin_memory().to(self._device, non_blocking=True)
        return images.to(self._device)

    def to(self, device: Device) -> FilePixels:
        """The same files, fetched onto ``device``."""
        return FilePixels(self.root, self.paths, size=self.size, shape=self._shape, device=device)

    def _into(self, batch: np.ndarray, slot: int, row: int) -> None:
        path = self.root / self.paths[row]
        try:
            image = decode.decode(path, self.size)
        except decode.DecodeError as error:
            raise UserError(
                f"data: {path} cannot be decoded: {error}. Mend or remove it (data.unreadable: skip leaves such"
                f" files out when they"
                " are found before training)"
            ) from error
        if image.shape != self._shape:
            raise UserError(
                f"data: {path} is now {image.shape}, it was {self._shape} when the folder was read; set data.size"
            )
        batch[slot] = image

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pool": None}
