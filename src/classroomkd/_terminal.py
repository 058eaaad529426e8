"""The console of the command line, on which no name moves the cursor or hides what is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from classroomkd._printable import printable

__all__ = ["Console"]


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
