"""Reading what a run, a cache or a student's file says: of the right form, or refused in one sentence.

Such files may be cut, changed, or somebody else's. They are plain files of bounded length, JSON of bounded depth with
numbers that fit into 64 bits and text that can be written again; what they hold is checked once, where it is read, and
whether they are what was written (``SHA256SUMS``), too.
Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from classroomkd._sums import DIFFERS, as_written
from classroomkd.errors import UserError

__all__ = [
    "MAPPING",
    "MOST_LOG",
    "Damaged",
    "checked",
    "finite",
    "log_line",
    "parse_json",
    "parse_log_line",
    "plain",
    "read_json",
    "read_text",
    "read_yaml",
    "trusted",
]

MOST = 64 * 2**20  # bytes of a stored text
MOST_LOG = 2**30  # of one that grows with the training
MOST_YAML = 2**20  # characters of a stored recipe
DEEPEST = 64  # lists and mappings inside each other
DIGITS = 19  # of a whole number

MAPPING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])

T = TypeVar("T")


def finite(value: Any) -> Any:
    """Plain data with None for every float that is not finite: JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# What taking apart values of any kind, or reading files of any content, fails with.
_NOT_OURS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


class Damaged(ValueError):
    """What is wrong with a stored file or text; the caller says with which, and what to do."""


@contextlib.contextmanager
def trusted(place: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Take stored values apart inside the block: whatever that fails with, they are not what was stored.

    Raises:
        UserError: ``place`` is damaged, how, and the ``remedy``.
    """
    try:
        yield
    except UserError:
        raise
    except Damaged as error:
        raise UserError(f"{os.fspath(place)} {error}; {remedy}") from error
    except _NOT_OURS as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{os.fspath(place)} is damaged ({told[:200]}); {remedy}") from error


def read_json(path: str | os.PathLike[str], form: TypeAdapter[T], *, remedy: str) -> T:
    """What a stored JSON file says.

    Args:
        path: the file.
        form: what it must be, by pydantic; a number is no text, and text no number.
        remedy: what the user can do, the end of the sentence.

    Raises:
        UserError: it is no such file.
    """
    with trusted(path, remedy):
        return parse_json(checked(path), form)


def read_text(path: str | os.PathLike[str], *, remedy: str) -> str:
    """A stored text file.

    Raises:
        UserError: it cannot be read, is too large, or no text in UTF-8.
    """
    with trusted(path, remedy):
        return _text(checked(path))


def read_yaml(path: str | os.PathLike[str], *, remedy: str) -> dict[str, Any]:
    """A stored recipe: a mapping, without aliases, which a short text can grow enormous by.

    Raises:
        UserError: it is none.
    """
    import yaml

    with trusted(path, remedy):
        text = _text(checked(path))
        if len(text) > MOST_YAML or _depth(text) > DEEPEST:  # its reader would take for ever
            raise Damaged("was not written by a run (too large, or too many brackets inside each other)")
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                raise Damaged("was not written by a run (it has aliases)")
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise Damaged(f"is damaged ({str(error).splitlines()[0]})") from error
        _check(found)
        return MAPPING.validate_python(found, strict=True)


def parse_json(content: bytes | str, form: TypeAdapter[T]) -> T:
    """What a JSON text says.

    Raises:
        Damaged: no JSON, or of another form.
    """
    text = content if isinstance(content, str) else _text(content)
    try:
        found = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise Damaged(f"is damaged (cut off or damaged at line {error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"is damaged ({error})") from error
    _check(found)
    try:
        return form.validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(f"is damaged ({place + ': ' if place else ''}{first['msg']})") from error


_CRC = re.compile(r', "crc": "([0-9a-f]{8})"\}$')


def log_line(record: dict[str, Any]) -> str:
    """A record as a line of a log, without its end: JSON, the last key a checksum (CRC-32) of the others."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc": "{zlib.crc32(text.encode()):08x}"}}'


def parse_log_line(text: str, form: TypeAdapter[T]) -> T:
    """What a line of a log says, without its checksum; a line of an earlier version has none, and is believed.

    Raises:
        Damaged: no JSON, of another form, or not what was written.
    """
    found = _CRC.search(text)
    if found is not None:
        text = text[: found.start()] + "}"
        if zlib.crc32(text.encode()) != int(found[1], 16):
            raise Damaged("is not what was written (its checksum differs)")
    elif '"crc":' in text:
        raise Damaged("is not what was written (its checksum is damaged)")
    return parse_json(text, form)


def plain(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """The bytes of a plain file of bounded length; a pipe in its place is not waited for.

    Raises:
        Damaged: it is none, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Damaged("is no plain file")
            content = file.read(most + 1)
    except IsADirectoryError as error:
        raise Damaged("is a folder") from error
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror or error})") from error
    if len(content) > most:
        raise Damaged(f"is larger than {most // 2**20} MiB")
    return content


def checked(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """The bytes of a plain file, as they were written where ``SHA256SUMS`` beside it has its checksum.

    Raises:
        Damaged: as for :func:`plain`, or its checksum differs.
    """
    for _ in range(3):  # another process may write it between the two looks
        content = plain(path, most)
        if as_written(Path(path), content):
            return content
    raise Damaged(DIFFERS)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged("is not a text file") from error


def _depth(text: str) -> int:
    """How many brackets are open at most."""
    deep = most = 0
    for letter in re.findall(r"[\[\]{}]", text):
        deep += 1 if letter in "[{" else -1
        most = max(most, deep)
    return most


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check(found: Any) -> None:
    """Refuse what is too deep to be gone through, and text that cannot be written."""
    level = [found]
    for _ in range(DEEPEST):
        for item in level:
            if isinstance(item, int) and abs(item) >= 10**DIGITS:
                raise Damaged(f"is damaged (a number of more than {DIGITS} digits)")
            texts = item if isinstance(item, dict) else [item]
            for text in texts:
                if isinstance(text, str) and not text.isascii():
                    try:
                        text.encode()
                    except UnicodeEncodeError as error:
                        raise Damaged("is damaged (half a character)") from error
        level = [
            below
            for item in level
            if isinstance(item, dict | list)
            for below in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise Damaged(f"is damaged (more than {DEEPEST} lists and mappings inside each other)")
