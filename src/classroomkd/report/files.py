"""Reading what a run writes: JSON whole or refused by name, logs as far as they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError

__all__ = ["read_json", "read_metrics"]


def read_json(file: Path) -> Any:
    """Parse one JSON file; :class:`UserError` when it cannot be read or ends in the middle."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{file}: not a text file. Was it replaced? Run again with --resume to write it anew."
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file}: cut off or damaged at line {error.lineno} ({error.msg}). "
            "Go on with the run by the same command and --resume; it writes the file anew."
        ) from None


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Records of one ``metrics.jsonl`` in order; an absent file gives none.

    A last line without its end (the run was killed while writing) is left out; damage anywhere else is a
    :class:`UserError`. After a resume, steps that were done twice are kept once: the later record wins.
    """
    file = Path(path)
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[tuple[str, float], dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = (str(record.get("kind", "")), float(record["step"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines):
                break
            raise UserError(
                f'{file}: line {number} is not a record with a "step". Remove that line, or run this seed again.'
            ) from None
        records.pop(key, None)  # re-inserted at its later place
        records[key] = record
    return sorted(records.values(), key=lambda record: float(record["step"]))
