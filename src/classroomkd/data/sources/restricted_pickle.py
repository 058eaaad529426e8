"""The one place where pickles are read: CIFAR's python archives, through an unpickler that admits arrays and plain
values only.

A pickle is a program. This one may build numbers, strings, lists, dicts and numpy arrays of plain numbers, and
nothing else: any other name it asks for is refused before it is looked up, so no code of the file's choosing runs.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np

from classroomkd.errors import UserError

__all__ = ["RefusedError", "load"]


class RefusedError(UserError):
    """The pickle asks for something that is neither an array nor a plain value."""


class _Kind:
    """Stands for numpy's array: it can be named, not called, since a call makes an array of any size."""

    __slots__ = ()


_KIND = _Kind()


class _Array:
    """What numpy's own reconstruction does for arrays: an empty one, filled when its state is set."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> Any:
        if kind is not _KIND:
            raise RefusedError("data: a pickle rebuilds something that is not an array")
        return np.ndarray((0,), np.uint8)


class _Dtype:
    """A dtype of plain numbers."""

    __slots__ = ()

    def __call__(self, code: Any, align: Any = False, copy: Any = False) -> Any:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if text not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"):
            raise RefusedError(f"data: a pickle holds an array of {text!r}; only plain numbers are admitted")
        # A copy: the pickle sets its state next, and numpy shares one object per dtype.
        return np.dtype(text, False, True)


class _Encode:
    """How newer Pythons write bytes into old pickles."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise RefusedError("data: a pickle encodes text in an unexpected way")
        return text.encode("latin-1")


# Nothing is imported by name. Our own stand-ins have no attributes, so a pickle cannot set any on them.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array(),
    ("numpy._core.multiarray", "_reconstruct"): _Array(),
    ("numpy", "ndarray"): _KIND,
    ("numpy", "dtype"): _Dtype(),
    ("_codecs", "encode"): _Encode(),
}


class _Unpickler(pickle.Unpickler):
    place = ""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise RefusedError(
                f"data: {self.place} asks for {module}.{name}; a CIFAR archive holds arrays only, so this file"
                f" is not opened"
            )
        return _ADMITTED[(module, name)]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError(f"data: {self.place} refers to outside objects; a CIFAR archive does not")


def load(file: BinaryIO, place: str) -> dict[str, Any]:
    """The dict in a pickle, its keys as text; ``place`` names the file in messages.

    Raises:
        RefusedError: when it asks for anything but arrays and plain values.
        UserError: when it is damaged or not a dict.
    """
    unpickler = _Unpickler(file, encoding="bytes")
    unpickler.place = place
    try:
        value = unpickler.load()
    except RefusedError:
        raise
    except Exception as error:
        # A damaged pickle can raise almost anything; none of it is a fault of the program.
        raise UserError(
            f"data: {place} is not a readable pickle ({type(error).__name__}: {error}); fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"data: {place} holds a {type(value).__name__}, not the dict of a CIFAR archive")
    return {_text(key): _plain(item) for key, item in value.items()}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """Lists of byte strings (class and file names) as text; everything else as it is."""
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value
