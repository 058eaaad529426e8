"""Source ``fashion-mnist:DIR``: the authors' four idx files, gzipped or plain (Xiao, Rasul, Vollgraf 2017, MIT
licence)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from classroomkd._limits import CutOff, TooLarge, check_unpacked, read_exactly
from classroomkd.data.sources.base import Folder, Request, Source, fingerprint, memory
from classroomkd.errors import UserError

__all__ = ["CLASSES", "open_fashion_mnist", "read_idx"]

CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

_UBYTE = 0x08  # the idx type code of unsigned bytes, the only one these files use
_FIRST = bytes([9, 0, 0, 3, 0, 2, 7, 2, 5, 5])  # labels of the authors' training part
_DIGITS = bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4])  # of MNIST's, whose files have the same names
_PARTS = {"train": "train", "test": "t10k"}
_WITHIN = ("", "raw", "FashionMNIST/raw", "fashion-mnist")


def read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes with ``dims`` dimensions; gzipped when its name ends in .gz.

    Raises:
        UserError: when the file is damaged or of another kind.
    """
    try:
        with path.open("rb") as packed, gzip.open(packed) if path.suffix == ".gz" else packed as file:
            head = file.read(4 + 4 * dims)
            if len(head) < 4 + 4 * dims or head[:4] != bytes([0, 0, _UBYTE, dims]):
                raise UserError(f"data: {path} is not an idx file of bytes with {dims} dimensions; fetch it again")
            shape = struct.unpack(f">{dims}I", head[4:])
            expected = math.prod(shape)
            check_unpacked(expected, path.stat().st_size)
            data = read_exactly(cast(IO[bytes], file), expected)
    except CutOff as error:
        raise UserError(f"data: {path}: {error}, as its head says: it is cut off; fetch it again") from error
    except (OSError, EOFError, TooLarge, zlib.error) as error:
        raise UserError(f"data: {path} cannot be read ({error}); fetch it again") from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find(folder: Folder, name: str) -> Path:
    for within in _WITHIN:
        for ending in (".gz", ""):
            path = folder.path / within / (name + ending)
            if path.is_file():
                return path
    places = ", ".join(str(Path(within) / name) for within in _WITHIN[:3])
    raise folder.missing(f"{places} (plain or .gz)")


def open_fashion_mnist(argument: str, request: Request) -> Source:
    """``argument`` is the folder with the four files, or one that holds ``FashionMNIST/raw`` as torchvision makes
    it."""
    folder = Folder(argument, "fashion-mnist")
    parts, arrays = {}, []
    for part, stem in _PARTS.items():
        where = _find(folder, f"{stem}-images-idx3-ubyte")
        images = read_idx(where, 3)
        target = read_idx(_find(folder, f"{stem}-labels-idx1-ubyte"), 1)
        if len(images) != len(target):
            raise UserError(f"data: {where} has {len(images)} images, but {len(target)} labels lie beside it")
        if target.size and int(target.max()) >= len(CLASSES):
            raise UserError(f"data: {where.parent} has label {int(target.max())}; Fashion-MNIST has 0 to 9")
        parts[part] = memory(images, target.astype(np.int64), request, "fashion-mnist")
        arrays += [images, target]
    mark = fingerprint(f"fashion-mnist size={request.size}", *arrays)
    return Source("fashion-mnist", CLASSES, parts, "crop_flip", mark, _other_files(folder, arrays[1]))


def _other_files(folder: Folder, target: NDArray[np.uint8]) -> tuple[str, ...]:
    """A note on files of the same names that hold something else: digits, Kuzushiji, a data set of one's own."""
    first = bytes(target[: len(_FIRST)])
    if first == _FIRST:
        return ()
    what = "those of MNIST's digits" if first == _DIGITS else "not those of Fashion-MNIST"
    return (
        f"the first labels in {folder.path} are {what}; the classes are called as Fashion-MNIST's all the same"
        f" ({', '.join(CLASSES[:3])}, …). Other images: imagefolder:DIR, or a Dataset",
    )
