"""How pictures of any size meet networks that want three channels and one square size: ``data.resize``, by Pillow.

With ``size`` n the result is n x n, smaller pictures enlarged:

- ``crop``: the shorter side is resized to n, the longer one in proportion (rounded down), and the middle n x n is kept:
  torchvision's ``Resize(n)`` and ``CenterCrop(n)`` on a PIL image, to the bit.
- ``letterbox``: the longer side is resized to n, the shorter one in proportion (rounded), with black on both sides of
  it: ``PIL.ImageOps.pad``.
- ``stretch``: both sides are resized to n.
- ``pad``: what versions before ``data.resize`` did, see below.

Resizing is bilinear and antialiased. Without ``size`` a picture keeps its own; one with a side below 32 is brought to
32 x 32 by the same rule. One channel is repeated to three; other channel counts than 1 and 3 are refused.

``pad`` enlarges nothing but in whole steps:

1. Without ``size``: a picture that fits into 32 x 32 is enlarged by the largest whole factor that fits (every pixel
   repeated: 8 x 8 becomes 32 x 32, 28 x 28 stays) and then padded with zeros, centred, to 32 x 32. A side that is
   longer stays.
2. With ``size`` n: a picture whose short side is longer than n is resized, antialiased, so that the short side is n,
   and cut to n x n at the centre. A smaller one is enlarged and padded as in 1, with n for 32. One that is longer than
   n in one direction only is padded in the other and cut at the centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from classroomkd._limits import MOST_PIXELS, TooLarge
from classroomkd.data.spec import RESIZE
from classroomkd.errors import UserError

__all__ = ["SMALLEST", "Plan", "fit", "fit_image", "fitted_shape", "plan"]

SMALLEST = 32


def fit_image(image: Image.Image, size: int | None, resize: str) -> NDArray[np.uint8]:
    """One PIL image in mode L or RGB -> (3, H', W') uint8 by the rule ``resize`` (see the module's text).

    Raises:
        TooLarge: a picture so long and thin that the rule would make more than 64 megapixels of it on the way.
    """
    assert image.mode in ("L", "RGB"), image.mode
    if resize == "pad":
        return _padded(image, size)
    side = _side(image.height, image.width, size)
    if side is not None and image.size != (side, side):
        image = _RULES[resize](image, side)
    pixels = np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])))


def fit(images: Tensor | NDArray[np.uint8], size: int | None, resize: str, *, where: str = "data") -> Tensor:
    """Images of one size, ``uint8`` (N, H, W), (N, 1, H, W) or (N, 3, H, W) -> (N, 3, H', W') by the rule ``resize``.

    Raises:
        UserError: for other channel counts, dtypes or dimensions; ``where`` names the data in the message.
    """
    images = _checked(images, where)
    if resize == "pad":
        return _padded_tensor(images, size).expand(-1, 3, -1, -1).contiguous()
    out = fitted_shape(images.shape[-2], images.shape[-1], size, resize)
    if out == tuple(images.shape[-2:]):
        return images.expand(-1, 3, -1, -1).contiguous()
    result = torch.empty((len(images), 3, *out), dtype=torch.uint8)
    grey = images.shape[1] == 1
    for row, image in enumerate(images.cpu().permute(0, 2, 3, 1).contiguous().numpy()):
        try:
            result[row] = torch.from_numpy(fit_image(Image.fromarray(image[..., 0] if grey else image), size, resize))
        except TooLarge as error:
            raise UserError(f"{where}: {error}") from error
    return result


def fitted_shape(height: int, width: int, size: int | None, resize: str) -> tuple[int, int]:
    """(H', W') of a picture of ``height`` x ``width`` pixels under the rule."""
    if resize == "pad":
        return plan(height, width, size).out
    side = _side(height, width, size)
    return (height, width) if side is None else (side, side)


def _side(height: int, width: int, size: int | None) -> int | None:
    """What a rule is asked for; None where the picture stays as it is."""
    return size or (SMALLEST if min(height, width) < SMALLEST else None)


# --- crop, letterbox and stretch ------------------------------------------------------------------------------------


def _crop(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    long = int(side * max(width, height) / min(width, height))
    if side * long > MOST_PIXELS:
        raise TooLarge(
            f"it is {width}x{height}, too long and thin for resize: crop; choose letterbox or stretch, or cut it first"
        )
    width, height = (side, long) if width <= height else (long, side)
    # ``round`` goes to the even number, as in torchvision.
    left, top = round((width - side) / 2), round((height - side) / 2)
    return _resized(image, width, height).crop((left, top, left + side, top + side))


def _letterbox(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width >= height:
        width, height = side, max(1, round(height / width * side))
    else:
        width, height = max(1, round(width / height * side)), side
    ground = Image.new(image.mode, (side, side))
    ground.paste(_resized(image, width, height), (round((side - width) * 0.5), round((side - height) * 0.5)))
    return ground


def _stretch(image: Image.Image, side: int) -> Image.Image:
    return _resized(image, side, side)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


_RULES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop": _crop,
    "letterbox": _letterbox,
    "stretch": _stretch,
}
assert {*_RULES, "pad"} == {*RESIZE}


# --- pad ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What ``pad`` does to one image: resize to ``resize`` (H, W) if given, repeat pixels ``factor`` times, pad and cut
    to ``out`` (H, W)."""

    resize: tuple[int, int] | None
    factor: int
    out: tuple[int, int]


def plan(height: int, width: int, size: int | None) -> Plan:
    """``pad`` for one image of ``height`` x ``width`` pixels."""
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


def _padded(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    what = plan(image.height, image.width, size)
    if what.resize is not None:
        image = image.resize((what.resize[1], what.resize[0]), Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if what.factor > 1:
        pixels = pixels.repeat(what.factor, 1).repeat(what.factor, 2)
    tensor = _pad_or_cut(torch.from_numpy(np.ascontiguousarray(pixels)), what.out)
    result: NDArray[np.uint8] = tensor.contiguous().numpy()
    return result


def _padded_tensor(images: Tensor, size: int | None) -> Tensor:
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
    return _pad_or_cut(images, what.out)


def _pad_or_cut(images: Tensor, out: tuple[int, int]) -> Tensor:
    """Centre (…, H, W) in (…, *out): zeros around what is smaller, equal strips (the odd one last) cut off what is
    larger."""
    pads = []
    for have, want in ((images.shape[-1], out[1]), (images.shape[-2], out[0])):
        before = (want - have) // 2 if want >= have else -((have - want) // 2)
        pads += [before, want - have - before]
    return F.pad(images, pads) if any(pads) else images


def _checked(images: Tensor | NDArray[np.uint8], where: str) -> Tensor:
    """(N, C, H, W) uint8, C one of 1 and 3."""
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
    return images
