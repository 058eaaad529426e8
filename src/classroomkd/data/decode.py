"""Image files to ``uint8`` pixels: every mode either handled or refused by name, EXIF orientation applied.

Greyscale and colour of 8 bits are taken as they are; 16-bit grey is scaled down to 8 bits; palettes, CMYK and YCbCr
become RGB; an alpha channel is dropped after the picture was laid on black. Floating point, CIELAB and other modes
are refused. EXIF data that cannot be read turn nothing.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from classroomkd._limits import MOST_PICTURE, MOST_PIXELS, TooLarge, check_pixels
from classroomkd.data import geometry

__all__ = [
    "ENDINGS",
    "DecodeError",
    "decode",
    "decode_sized",
    "decoding",
    "orientation",
    "oriented_size",
    "reason",
    "small_enough",
    "to_rgb_or_grey",
    "upright",
]

ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".avif", ".jp2", ".j2k",
)  # fmt: skip

_ORIENTATION = 0x0112
_UPRIGHT = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # those that swap height and width
_PILLOW = r"PIL\."


class DecodeError(Exception):
    """A file that is no image, is damaged, or is of a kind that does not fit; the text says which."""


def decode(path: str | Path, size: int | None, resize: str) -> NDArray[np.uint8]:
    """The image in a file, brought to ``size`` by the geometry rule ``resize``: (3, H, W) uint8.

    Raises:
        DecodeError: when it cannot be read.
    """
    return decode_sized(path, size, resize)[0]


def decode_sized(
    picture: str | Path | bytes, size: int | None, resize: str
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """As :func:`decode`, also of a file's content, and (height, width) of the picture before that."""
    with (
        decoding(),
        Image.open(io.BytesIO(picture if isinstance(picture, bytes) else _content(Path(picture)))) as image,
    ):
        small_enough(image)
        width, height = image.size
        if resize == "pad" and image.format == "JPEG" and size is not None:
            # Lets the decoder halve the picture while it still is at least twice as large as asked for. The other
            # rules give the pixels that anybody gets who opens the picture and resizes it.
            image.draft(None, (2 * size, 2 * size))
        image.load()  # a TIFF is turned by loading, and forgets its orientation then
        turned = orientation(image) in _TURNED
        shown = to_rgb_or_grey(upright(image))
        return geometry.fit_image(shown, size, resize), (width, height) if turned else (height, width)


@contextmanager
def decoding() -> Iterator[None]:
    """Around whatever opens and decodes a picture.

    Raises:
        DecodeError: for anything that goes wrong inside.
    """
    try:
        _silence_warnings()
        yield
    except DecodeError:
        raise
    except Exception as error:
        # Decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and more on damaged
        # files.
        raise DecodeError(reason(error)) from error


def _content(path: Path) -> bytes:
    """The bytes of a picture's file; no more than a picture has."""
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DecodeError("it is no plain file")
        content = file.read(MOST_PICTURE + 1)
    if len(content) > MOST_PICTURE:
        raise DecodeError(f"it is larger than {MOST_PICTURE // 10**6} MB, more than any picture that is decoded")
    return content


def small_enough(image: Image.Image) -> None:
    """Refuse a picture of more than 64 megapixels by its head, before anything of it is decoded.

    Raises:
        DecodeError: it is.
    """
    try:
        check_pixels(*image.size)
    except TooLarge as error:
        raise DecodeError(str(error)) from error


def reason(error: Exception) -> str:
    """One line for a decoder's complaint, without the address of the buffer it was given."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image, or of a format that this Pillow cannot read"
    if isinstance(error, Image.DecompressionBombError):  # it looks before we can
        return f"it has more than {MOST_PIXELS // 10**6} million pixels, of which none are decoded: make it smaller"
    text = re.sub(r" ?<[\w.]+ object at 0x[0-9a-fA-F]+>", "", str(error))
    return (text.strip() or type(error).__name__).splitlines()[0]


def _silence_warnings() -> None:
    """Silence Pillow's warnings about odd metadata and very large pictures: only what it cannot decode matters here.

    Once, for the process: ``warnings.catch_warnings`` is not for threads, and decoding runs beside the training.
    """
    if not any(action == "ignore" and module is not None and module.pattern == _PILLOW
               for action, _, _, module, _ in warnings.filters):  # fmt: skip
        warnings.filterwarnings("ignore", module=_PILLOW)


def oriented_size(path: str | Path | IO[bytes]) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the file's head alone.

    Raises:
        DecodeError: when it cannot be read.
    """
    with decoding(), Image.open(path) as image:
        small_enough(image)
        width, height = image.size
        # A TIFF gives the size that it is going to have.
        turned = image.format != "TIFF" and orientation(image) in _TURNED
        return (width, height) if turned else (height, width)


def upright(image: Image.Image) -> Image.Image:
    """A loaded picture turned as its EXIF data say; as it is where they are broken or say nothing."""
    method = _UPRIGHT.get(orientation(image))
    return image if method is None else image.transpose(method)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 to 8; 1 where it says none that is known, or metadata that cannot be
    read: those do not make a picture bad. Nothing is decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking a PNG any further would decode it
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # SyntaxError, struct.error, OSError and more
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb_or_grey(image: Image.Image) -> Image.Image:
    """The image in mode ``L`` or ``RGB``.

    Raises:
        DecodeError: for modes without a stated way.
    """
    mode = image.mode
    if mode in ("L", "RGB"):
        # A colour that stands for "transparent" needs no care: it is dropped with the rest of the metadata.
        return image
    if mode == "1":
        return image.convert("L")
    if mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _from_wide(image)
    if mode in ("CMYK", "YCbCr", "RGBX"):
        return image.convert("RGB")
    if mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    if mode in ("P", "PA", "RGBA", "RGBa", "LA", "La"):
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", clear.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, clear).convert("RGB")
    raise DecodeError(f"its mode {mode} has no stated way to 8-bit grey or RGB; convert it first")


def _from_wide(image: Image.Image) -> Image.Image:
    """16-bit grey (which Pillow also gives as 32-bit integers) by its upper byte; wider values are refused."""
    values = np.asarray(image).astype(np.int64)
    if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise DecodeError("its 32-bit values exceed 16 bits; scale them to 8 bits first")
    return Image.fromarray((values >> 8).astype(np.uint8))
