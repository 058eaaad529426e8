"""Text that holds the name of a file which is no text can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroomkd._files import atomic_write, atomic_write_text, refuse_no_text
from classroomkd._printable import REPLACED
from classroomkd.errors import UserError


def test_names_that_are_no_text_are_written_with_replacement_characters(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "caf\udce9, café\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\ufffd, café\n"
    with atomic_write(tmp_path / "b.txt", "w") as file:
        file.write("\udce9\udce8")
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "\ufffd\ufffd"
    assert "é\udce9€".encode("latin-1", REPLACED) == b"\xe9??"
    assert "é".encode("ascii", REPLACED) == b"?"


def test_places_whose_names_are_no_text_are_refused(tmp_path: Path) -> None:
    refuse_no_text(tmp_path / "café")
    with pytest.raises(UserError, match="caf\ufffd holds bytes that are no text"):
        refuse_no_text(tmp_path / "caf\udce9")
