"""What the command line writes to: streams and a console on which no name moves the cursor or hides what is said."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from classroomkd._printable import printable

__all__ = ["Console", "data_stream", "printable_streams"]


class Console(rich.console.Console):
    """Rich's console for text from elsewhere: control characters are written out, brackets and colons mean nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, so that what is written out is laid out as wide as it is."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """As rich's; its own sequences (``control``) and styles stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


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
