"""A zip archive read in place: members by name, as long as they declare to be and no longer."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

from classroomkd._limits import check_unpacked, read_exactly

__all__ = ["UNREADABLE", "Archive"]

UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError)
"""What reading a damaged, encrypted or oversized member raises."""


class Archive:
    """The members of a zip archive. Pickles as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: tuple[int, zipfile.ZipFile] | None = None

    def whole(self) -> bool:
        """Whether it is a zip archive whose list of members can be read."""
        try:
            self._open()
        except UNREADABLE:
            return False
        return True

    def names(self) -> list[str]:
        """Every file in it."""
        return [name for name in self._open().namelist() if not name.endswith("/")]

    def __contains__(self, name: str) -> bool:
        return name in self._open().NameToInfo

    def mark(self, name: str) -> tuple[int, int]:
        """Length and checksum of a member, as the archive has them."""
        known = self._open().NameToInfo[name]
        return known.file_size, known.CRC

    def open(self, name: str) -> IO[bytes]:
        """A member, of which only what is read is unpacked."""
        return self._open().open(name)

    def read(self, name: str, most: int | None = None) -> bytes:
        """A member's bytes.

        Raises:
            TooLarge: it declares more than real data do, or than ``most``, or holds more than it declares.
        """
        member = self._open().getinfo(name)
        check_unpacked(member.file_size, member.compress_size, most)
        with self._open().open(member) as file:
            return read_exactly(file, member.file_size)

    def _open(self) -> zipfile.ZipFile:
        # One handle a process: a forked one would share its parent's place in the file.
        if self._zip is None or self._zip[0] != os.getpid():
            self._zip = (os.getpid(), zipfile.ZipFile(self.path))
        return self._zip[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None}
