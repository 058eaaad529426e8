"""Images of a Dataset as pixels: PIL images, arrays and tensors by the geometry rule."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classroomkd.data import decode, geometry
from classroomkd.data.images import Device, ReadPixels
from classroomkd.data.sources.dataset_labels import Unreadable, given
from classroomkd.errors import UserError

__all__ = ["DatasetPixels", "item_pixels", "sides_of"]


def item_pixels(image: Any, size: int | None, resize: str, where: str) -> Tensor:
    """One item's image -> (3, H, W) uint8 by the geometry rule ``resize``.

    PIL images of any mode that ``decode`` knows; tensors (H, W), (C, H, W) and arrays, also (H, W, C): ``uint8``,
    ``uint16`` (by the upper byte, as 16-bit files), floats within 0..1, or ``bool``.

    Raises:
        UserError: naming ``where`` and what would fit.
    """
    if isinstance(image, Image.Image):
        try:
            with decode.decoding():  # a picture may be read from its file only now
                return torch.from_numpy(geometry.fit_image(decode.to_rgb_or_grey(image), size, resize))
        except decode.DecodeError as error:
            raise Unreadable(f"{where}: {error}") from error
    if isinstance(image, np.ndarray):
        if _channels_last(image):
            image = image.transpose(2, 0, 1)
        image = _tensor(image, where)
    if not isinstance(image, Tensor):
        raise UserError(f"{where}: the image is a {type(image).__name__}; give a PIL image, an array or a tensor")
    if image.dim() not in (2, 3) or image.numel() == 0:
        empty = ", which holds no pixel" if image.numel() == 0 else ""
        raise UserError(
            f"{where}: the image has shape {tuple(image.shape)}{empty}; give (height, width) or (channels, height,"
            " width)"
        )
    pixels = _bytes(image.detach(), where)
    return geometry.fit(pixels.reshape(1, -1, *pixels.shape[-2:]), size, resize, where=where)[0]


def _tensor(image: np.ndarray, where: str) -> Tensor:
    """An array of numbers in any byte order as a tensor."""
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(np.require(image, requirements=("C", "W")))
    except TypeError as error:
        raise UserError(f"{where}: pixels are {image.dtype}; {_TYPES}") from error


def _bytes(image: Tensor, where: str) -> Tensor:
    """Pixels as ``uint8``, by the range of their type."""
    if image.dtype == torch.bool:
        return image.to(torch.uint8) * 255
    if image.dtype == torch.uint16:
        return (image.to(torch.int32) >> 8).to(torch.uint8)
    if not image.is_floating_point():
        if image.dtype != torch.uint8:
            raise UserError(f"{where}: pixels are {str(image.dtype).removeprefix('torch.')}; {_TYPES}")
        return image
    if image.dtype.itemsize == 1:  # nothing is computed in 8-bit floats
        image = image.float()
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0.0 and high <= 1.0):
        divided = ": divide them by 255, or give uint8" if 1.0 < high <= 255.0 and low >= 0.0 else ""
        raise UserError(
            f"{where}: float pixels go from {low:.3g} to {high:.3g}; give 0 to 1, without Normalize{divided}"
            " (the run normalises by the training set's own mean and standard deviation)"
        )
    return (image * 255).round().to(torch.uint8)


_TYPES = "give uint8 (0 to 255), uint16 (0 to 65535) or floats (0 to 1)"


def _channels_last(image: np.ndarray) -> bool:
    return image.ndim == 3 and image.shape[-1] in (1, 3) and image.shape[0] not in (1, 3)


def sides_of(image: Any) -> tuple[int, int]:
    """(height, width) of an item's image that ``item_pixels`` has taken."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    height, width = image.shape[:2] if isinstance(image, np.ndarray) and _channels_last(image) else image.shape[-2:]
    return int(height), int(width)


class DatasetPixels(ReadPixels):
    """The images of ``dataset``, read in the calling thread each time they are asked for (a foreign dataset need not
    bear threads); ``kept`` are the items that count, all of them when None."""

    decodes = False  # that is the dataset's own affair

    def __init__(
        self,
        dataset: Any,
        *,
        size: int | None,
        resize: str,
        shape: tuple[int, int, int],
        where: str = "data",
        device: Device = "cpu",
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__(shape, device)
        self.dataset = dataset
        self.size, self.resize = size, resize
        self.where = where
        self.kept = kept

    def __len__(self) -> int:
        return len(self.dataset) if self.kept is None else len(self.kept)

    def only(self, kept: Sequence[int]) -> DatasetPixels:
        """The items ``kept`` alone."""
        less = copy.copy(self)
        less.kept = kept
        return less

    def fetch(self, index: Tensor) -> Tensor:
        """The images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``.

        Raises:
            UserError: naming the item, when one cannot be read.
        """
        rows = index.tolist() if self.kept is None else [self.kept[place] for place in index.tolist()]
        images = [self.image(row, given(self.dataset, row, self.where)[0]) for row in rows]
        return self._moved(torch.stack(images) if images else torch.empty((0, *self.shape), dtype=torch.uint8))

    def image(self, row: int, image: Any) -> Tensor:
        """``image``, item ``row`` of the dataset, as (C, H, W) uint8; refused when its shape is not the others'."""
        pixels = item_pixels(image, self.size, self.resize, f"{self.where}: item {row}")
        if tuple(pixels.shape) != self.shape:
            raise UserError(
                f"{self.where}: item {row} is {'x'.join(map(str, pixels.shape))}, the first is"
                f" {'x'.join(map(str, self.shape))}; set data.size to one size for all"
            )
        return pixels
