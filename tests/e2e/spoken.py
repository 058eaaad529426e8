"""What a command says on stderr."""

from __future__ import annotations

from typing import Any

__all__ = ["ending"]

KINDS = ("note: ", "data: ", "warning: ")


def ending(capsys: Any) -> str:
    """What was said since the last look but for the sentences about recipe, data and mentors: why it ended."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(KINDS))
