"""Text from elsewhere (names of classes, files, mentors, arms) made safe to show. Imports nothing heavy.

An escape sequence in a name moves a terminal's cursor or recolours it, a bidirectional override turns a line round:
both hide what is said. They are shown as they are written in a program: ``\\x1b``, ``\\u202e``.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

__all__ = ["REPLACED", "data_stream", "printable", "printable_streams"]

# Control characters but the tab and the end of a line; direction marks, overrides and isolates; separators of lines;
# blanks of no width (joiners stay: scripts and emoji need them); halves of characters; tags.
_RANGES = (
    (0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F), (0x61C, 0x61C), (0x200B, 0x200B), (0x200E, 0x200F), (0x2028, 0x202E),
    (0x2060, 0x206F), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xE0000, 0xE007F),
)  # fmt: skip


REPLACED = "classroomkd.replaced"
"""For ``open(errors=)``: what cannot be written becomes a replacement character, or ``?`` where there is none. A file's
name may hold bytes that are no text."""


def _replaced(error: UnicodeError) -> tuple[bytes | str, int]:
    assert isinstance(error, UnicodeEncodeError)
    count = error.end - error.start
    try:
        return "\ufffd".encode(error.encoding) * count, error.end
    except UnicodeEncodeError:
        return "?" * count, error.end


codecs.register_error(REPLACED, _replaced)


def _written(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_TABLE = {code: _written(code) for first, last in _RANGES for code in range(first, last + 1)}


def printable(value: Any, keep: str = "") -> Any:
    """Text whose control characters are written out; of lists and mappings all text in them, anything else as it is.

    Args:
        value: the text, or what holds it.
        keep: characters that stay, where they do no harm.
    """
    if isinstance(value, str):
        table = {code: text for code, text in _TABLE.items() if chr(code) not in keep} if keep else _TABLE
        return value if value.isascii() and value.isprintable() else value.translate(table)
    if isinstance(value, dict):
        return {printable(key, keep): printable(item, keep) for key, item in value.items()}
    return [printable(item, keep) for item in value] if isinstance(value, list) else value


class _Stream:
    """A text stream on which control characters are written out, but for the return before a progress bar's line.

    Rich writes its own sequences past it, to ``rich_proxied_file``.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        returned = text.startswith("\r")
        self.rich_proxied_file.write("\r" * returned + printable(text[returned:]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def printable_streams() -> Iterator[None]:
    """Inside the block whatever is printed is shown as text."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream(out), _Stream(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def data_stream() -> IO[str]:
    """Standard output for data (CSV): as it is where a program reads it, as text where a terminal shows it."""
    return sys.stdout if sys.stdout.isatty() else getattr(sys.stdout, "rich_proxied_file", sys.stdout)
