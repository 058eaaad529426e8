"""Where the files of pictures lie: below a folder, or in a zip archive, by their names there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from classroomkd._limits import MOST_PICTURE
from classroomkd.data import decode
from classroomkd.data.file_pixels import FilePixels
from classroomkd.data.images import Pixels
from classroomkd.data.keypoints.archive import UNREADABLE, Archive
from classroomkd.data.sources.walking import link_problem, shown
from classroomkd.data.sources.whole import may_be_cut_off
from classroomkd.errors import UserError

__all__ = ["FolderPictures", "Pictures", "ZipPictures"]

_WHOLE = 2**16  # bytes; a file of no more is compared as it is
_HEAD = 4096  # bytes of a larger one, from its start and from its end


class Pictures(Protocol):
    """Files of pictures by name. What reads one raises ``DecodeError`` where it cannot."""

    def decode(self, name: str, size: int | None, resize: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """(3, H, W) by the geometry rule, and (height, width) before that."""
        ...

    def sides(self, name: str) -> tuple[int, int]:
        """(height, width) by the file's head."""
        ...

    def doubtful(self, name: str) -> bool:
        """Whether a file must be decoded to know that it is whole."""
        ...

    def content(self, name: str, *, read: bool) -> tuple[int, bytes]:
        """A file's length and, with ``read``, what of it is compared; (-1, nothing) of one that cannot be read."""
        ...

    def shown(self, name: str) -> str:
        """Where a file lies, for messages."""
        ...

    def problem(self, name: str, error: OSError) -> str:
        """Why the system gives no file, in words."""
        ...

    def on_demand(self, names: Sequence[str], size: int | None, resize: str, shape: tuple[int, int, int]) -> Pixels:
        """Their pixels, decoded whenever they are asked for.

        Raises:
            UserError: these cannot be read on demand.
        """
        ...


class FolderPictures:
    """Files below the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def decode(self, name: str, size: int | None, resize: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """See :class:`Pictures`."""
        return decode.decode_sized(self.root / name, size, resize)

    def sides(self, name: str) -> tuple[int, int]:
        """See :class:`Pictures`."""
        return decode.oriented_size(self.root / name)

    def doubtful(self, name: str) -> bool:
        """See :class:`Pictures`."""
        try:
            return may_be_cut_off(self.root / name)
        except OSError:
            return True  # the decoder says why

    def content(self, name: str, *, read: bool) -> tuple[int, bytes]:
        """See :class:`Pictures`."""
        path = self.root / name
        try:
            length = path.stat().st_size
            if not read:
                return length, b""
            with path.open("rb") as file:
                content = file.read(_WHOLE if length <= _WHOLE else _HEAD)
                if length > _WHOLE:
                    file.seek(length - _HEAD)
                    content += file.read(_HEAD)
            return length, content
        except OSError:
            return -1, b""

    def shown(self, name: str) -> str:
        """See :class:`Pictures`."""
        return shown(self.root / name)

    def problem(self, name: str, error: OSError) -> str:
        """See :class:`Pictures`."""
        return link_problem(self.root / name, error)

    def on_demand(self, names: Sequence[str], size: int | None, resize: str, shape: tuple[int, int, int]) -> Pixels:
        """See :class:`Pictures`."""
        return FilePixels(self.root, names, size=size, resize=resize, shape=shape)


class ZipPictures:
    """Members of a zip archive, which is read once."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def decode(self, name: str, size: int | None, resize: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """See :class:`Pictures`."""
        return decode.decode_sized(self._member(name), size, resize)

    def sides(self, name: str) -> tuple[int, int]:
        """See :class:`Pictures`."""
        return decode.oriented_size(io.BytesIO(self._member(name)))

    def doubtful(self, name: str) -> bool:
        """See :class:`Pictures`: none is read twice."""
        return False

    def content(self, name: str, *, read: bool) -> tuple[int, bytes]:
        """See :class:`Pictures`."""
        try:
            length = self.archive.mark(name)[0]
            content = self._member(name) if read else b""
        except decode.DecodeError:
            return -1, b""
        return length, content if length <= _WHOLE else content[:_HEAD] + content[-_HEAD:]

    def shown(self, name: str) -> str:
        """See :class:`Pictures`."""
        return f"{shown(self.archive.path)}/{shown(name)}"

    def problem(self, name: str, error: OSError) -> str:
        """See :class:`Pictures`."""
        return decode.reason(error)

    def on_demand(self, names: Sequence[str], size: int | None, resize: str, shape: tuple[int, int, int]) -> Pixels:
        """See :class:`Pictures`."""
        gib = len(names) * int(np.prod(shape)) / 2**30
        raise UserError(
            f"data: {shown(self.archive.path)}: {len(names)} pictures of {shape[1]}x{shape[2]} take {gib:.1f} GiB,"
            " more than data.options.memory_gib (2) lets a zip archive have: unpack it and give the folder, images:DIR,"
            " or choose a smaller data.size"
        )

    def _member(self, name: str) -> bytes:
        try:
            return self.archive.read(name, MOST_PICTURE)
        except UNREADABLE as error:
            raise decode.DecodeError(decode.reason(error)) from None
