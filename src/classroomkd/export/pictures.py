"""Pictures as a user has them (files, Pillow's, arrays, tensors), brought to what a student takes.

Shapes: N pictures, (C, H, W) the student's input, (h, w) a picture's own size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from classroomkd.data import geometry
from classroomkd.data.decode import DecodeError, decode, decoding, small_enough, to_rgb_or_grey, upright
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.export.student import Student

__all__ = ["batches", "fitted", "listed", "opened"]

_WANTED = (
    "give a path, a Pillow image, uint8 pixels (h, w), (h, w, 3), (3, h, w), (N, 3, h, w) or (N, h, w, 3), or a list "
    "of them"
)


def fitted(student: Student, picture: Any) -> NDArray[np.uint8]:
    """One picture as the student takes it, (C, H, W) uint8: what ``classroomkd predict`` makes of a file.

    Args:
        student: whose input.
        picture: a path, a Pillow image, or uint8 pixels of one picture.

    Raises:
        DecodeError: it cannot be read, or the student takes another shape.
    """
    if isinstance(picture, str | os.PathLike):
        pixels = decode(Path(picture), student.side, student.resize)
    else:
        pixels = geometry.fit_image(opened(picture), student.side, student.resize)
    if pixels.shape != student.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (pixels.shape, student.shape))
        raise DecodeError(f"gives {got} pixels, the student takes {wanted}")
    return pixels


def opened(picture: Any) -> Image.Image:
    """One picture as Pillow's, in mode ``L`` or ``RGB``, turned as its EXIF note says.

    Raises:
        DecodeError: it cannot be read, or is no picture.
    """
    if isinstance(picture, str | os.PathLike):
        with decoding(), Image.open(Path(picture)) as image:
            return opened(image)
    if isinstance(picture, Image.Image):
        with decoding():
            small_enough(picture)
            picture.load()
            return to_rgb_or_grey(upright(picture))
    rows = _rows(picture)
    if len(rows) != 1:
        raise DecodeError(f"{len(rows)} pictures stand where one is asked for")
    return Image.fromarray(rows[0])


def listed(images: Any) -> list[Any]:
    """Pictures one by one, whether one was given, several in a list, or a batch.

    Raises:
        UserError: none was given, or what was given is none.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, Sequence):
        pictures = [picture for image in images for picture in listed(image)]
    else:
        try:
            pictures = list(_rows(images))
        except DecodeError as error:
            raise UserError(f"student(images): {error}") from error
    if not pictures:
        raise UserError(f"student(images): there is no image; {_WANTED}")
    return pictures


def batches(student: Student, images: Any, size: int = 64) -> Iterator[Tensor]:
    """The pictures of ``images`` as batches (B, C, H, W) uint8, B at most ``size``.

    Raises:
        UserError: one cannot be read; it is named by its path or its place.
    """
    pictures = listed(images)
    for start in range(0, len(pictures), size):
        pixels = []
        for place, picture in enumerate(pictures[start : start + size], start):
            try:
                pixels.append(torch.from_numpy(fitted(student, picture)))
            except (DecodeError, OSError) as error:
                raise UserError(f"{_called(picture, place)}: {error}") from error
        yield torch.stack(pixels)


def _called(picture: Any, place: int) -> str:
    return str(picture) if isinstance(picture, str | os.PathLike) else f"student(images): image {place} (from 0)"


def _rows(images: Any) -> NDArray[np.uint8]:
    """Pixels of one or more pictures as (N, h, w, 3) or (N, h, w), channels last as Pillow has them.

    Raises:
        DecodeError: other values, or another shape.
    """
    if not isinstance(images, np.ndarray | Tensor):
        raise DecodeError(f"a {type(images).__name__} is no picture; {_WANTED}")
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if values.dtype == np.bool_:  # as Datasets count them, too
        values = values.astype(np.uint8) * 255
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8:
        raise DecodeError(
            f"pixels are {values.dtype}; give uint8, 0 to 255 and not normalised: that is the student's own work"
        )
    shape = values.shape
    if len(shape) == 2:
        values = values[None, ..., None]
    elif len(shape) == 3:
        values = values[None]
    if values.ndim == 4 and values.shape[1] in (1, 3) and len(shape) != 2:
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or 0 in values.shape[1:]:
        raise DecodeError(f"pixels have shape {shape}; {_WANTED}")
    return np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values)
