"""A Dataset of the user's own."""

from __future__ import annotations

from PIL import Image
from torch.utils.data import Dataset

__all__ = ["Colours"]


class Colours(Dataset[tuple[Image.Image, int]]):
    """Three colours to tell apart, as PIL images."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        if i >= self.n:
            raise IndexError(i)
        colour = [20 + (i * 7) % 30] * 3
        colour[i % 3] = 200
        return Image.new("RGB", (32, 32), tuple(colour)), i % 3
