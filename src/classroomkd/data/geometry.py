"""The one rule by which images of any size meet networks that want three channels and one square size.

1. One channel is repeated to three. Other channel counts than 1 and 3 are refused.
2. Without ``size``: an image that fits into 32 x 32 is enlarged by the largest whole factor that fits (every pixel
   repeated: 8 x 8 becomes 32 x 32, 28 x 28 stays) and then padded with zeros, centred, to 32 x 32. A side that is
   longer stays.
3. With ``size`` n the result is n x n. An image whose short side is longer than n is resized, antialiased, so that
   the short side is n, and cut to n x n at the centre. A smaller one is enlarged and padded as in 2, with n for 32.
   One that is longer than n in one direction only is padded in the other and cut at the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from classroomkd.errors import UserError

__all__ = ["SMALLEST", "Plan", "fit", "fit_image", "plan"]

SMALLEST = 32


@dataclass(frozen=True)
class Plan:
    """What happens to one image: resize to ``resize`` (H, W) if given, repeat pixels ``factor`` times, pad and cut to
    ``out`` (H, W)."""

    resize: tuple[int, int] | None
    factor: int
    out: tuple[int, int]


def plan(height: int, width: int, size: int | None) -> Plan:
    """The rule above for one image of ``height`` x ``width`` pixels."""
    box = size or SMALLEST
    if size is not None and min(height, width) > size:
        short = min(height, width)
        # Rounded half up, in integers, so that no platform differs.
        return Plan(
            ((2 * height * size + short) // (2 * short), (2 * width * size + short) // (2 * short)), 1, (size, size)
        )
    factor = max(1, box // max(height, width))
    out = (size, size) if size is not None else (max(SMALLEST, height * factor), max(SMALLEST, width * factor))
    return Plan(None, factor, out)


def _pad_or_cut(images: Tensor, out: tuple[int, int]) -> Tensor:
    """Centre (…, H, W) in (…, *out): zeros around what is smaller, equal strips (the odd one last) cut off what is
    larger."""
    pads = []
    for have, want in ((images.shape[-1], out[1]), (images.shape[-2], out[0])):
        before = (want - have) // 2 if want >= have else -((have - want) // 2)
        pads += [before, want - have - before]
    return F.pad(images, pads) if any(pads) else images


def fit(images: Tensor | NDArray[np.uint8], size: int | None = None, *, where: str = "data") -> Tensor:
    """Images of one size, ``uint8`` (N, H, W), (N, 1, H, W) or (N, 3, H, W) -> (N, 3, H', W') by the rule above.

    Raises:
        UserError: for other channel counts, dtypes or dimensions; ``where`` names the data in the message.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=("C", "W")))
    if images.dtype != torch.uint8:
        raise UserError(f"{where}: pixels are {str(images.dtype).removeprefix('torch.')}; give uint8 (0 to 255)")
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise UserError(
            f"{where}: images have shape {tuple(images.shape[1:])} (channels, height, width); only 1 or 3"
            f" channels fit the networks: convert the images to grey or RGB first"
        )
    if 0 in images.shape[-2:]:
        raise UserError(f"{where}: images have shape {tuple(images.shape[1:])}, a side without pixels")
    what = plan(images.shape[-2], images.shape[-1], size)
    if what.resize is not None:
        chunks = [
            F.interpolate(part.float(), what.resize, mode="bilinear", antialias=True)
            .round_()
            .clamp_(0, 255)
            .to(torch.uint8)
            for part in torch.split(images, 1024)
        ]
        images = torch.cat(chunks) if chunks else images.new_zeros(0, images.shape[1], *what.resize)
    if what.factor > 1:
        images = images.repeat_interleave(what.factor, -2).repeat_interleave(what.factor, -1)
    return _pad_or_cut(images, what.out).expand(-1, 3, -1, -1).contiguous()


def fit_image(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    """One PIL image in mode L or RGB -> (3, H', W') uint8 by the rule above; resizing is Pillow's antialiased
    bilinear."""
    assert image.mode in ("L", "RGB"), image.mode
    what = plan(image.height, image.width, size)
    if what.resize is not None:
        image = image.resize((what.resize[1], what.resize[0]), Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if what.factor > 1:
        pixels = pixels.repeat(what.factor, 1).repeat(what.factor, 2)
    tensor = _pad_or_cut(torch.from_numpy(np.ascontiguousarray(pixels)), what.out)
    result: NDArray[np.uint8] = tensor.contiguous().numpy()
    return result
