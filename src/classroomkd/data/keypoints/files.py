"""Picture files in a folder or a zip archive, and canvases cut out of them: in memory, or whenever they are needed.

Archives are read in place; nothing is unpacked on disk. Pillow decodes outside Python's lock, so threads suffice.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from classroomkd._limits import MOST_PICTURE, TooLarge
from classroomkd.data import decode
from classroomkd.data.file_pixels import pool_size
from classroomkd.data.images import Device, ReadPixels
from classroomkd.data.keypoints.archive import UNREADABLE, Archive
from classroomkd.data.keypoints.crops import Canvas, render
from classroomkd.data.keypoints.people import Floats, Picture
from classroomkd.errors import UserError

__all__ = ["CropPixels", "Files", "Store", "cut_all", "look_at_all"]

Job = tuple[Picture, Floats, float]  # a picture, and origin and step of a crop in it

_EDGE = 4096  # bytes of a file that enter the fingerprint, from its start and from its end
_MOST_EDGES = 10_000
UPRIGHT, SIDEWAYS = 1, frozenset({5, 6, 7, 8})  # EXIF orientations
_LAST = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


class Store(Protocol):
    """Where pictures come from."""

    def picture(self, picture: Picture) -> NDArray[np.uint8]:
        """The picture (height, width, 3) uint8."""
        ...

    def digest(self, names: Sequence[str]) -> str:
        """SHA-256 (hex) of what the files ``names`` hold."""
        ...


class Files:
    """The files of a folder or of a zip archive, by their name below ``inside``."""

    def __init__(self, path: str | Path, inside: str = "") -> None:
        self.path = Path(path)
        self.inside = inside.strip("/")
        self.archive = Archive(self.path) if self.path.is_file() else None
        self.turned: set[str] = set()  # pictures that were turned though their size alone does not say so
        if self.archive and not self.archive.whole():
            raise UserError(f"data: {self.path} is neither a folder nor a zip archive; give one of them")
        if not self.archive and not self.path.is_dir():
            raise UserError(f"data: there is no folder or zip archive {self.path}; give the path of one that exists")

    def below(self, inside: str) -> Files:
        """The files below another folder of the same place."""
        return Files(self.path, inside)

    def holds(self, inside: str) -> bool:
        """Whether there is such a folder in it."""
        if self.archive:
            return any(name.startswith(f"{inside.strip('/')}/") for name in self.archive.names())
        return not Path(inside).is_absolute() and (self.path / inside).is_dir()

    def names(self) -> set[str]:
        """Every file below ``inside``, relative to it."""
        if self.archive:
            start = f"{self.inside}/" if self.inside else ""
            return {name.removeprefix(start) for name in self.archive.names() if name.startswith(start)}
        root = self.path / self.inside
        return {
            (Path(folder) / name).relative_to(root).as_posix() for folder, _, files in os.walk(root) for name in files
        }

    def __contains__(self, name: str) -> bool:
        return self._member(name) in self.archive if self.archive else self._plain(name).is_file()

    def read(self, name: str) -> bytes:
        """The bytes of the file ``name``.

        Raises:
            UserError: it cannot be read, or would unpack to far more than data do.
        """
        try:
            return self.archive.read(self._member(name)) if self.archive else self._plain(name).read_bytes()
        except UNREADABLE as error:
            raise UserError(
                f"data: {self.path}: {name} cannot be read: {decode.reason(error)}; get it again"
            ) from error

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of the picture ``name`` as it is to be looked at, from its head.

        Raises:
            DecodeError: when it is no picture.
        """
        with decode.decoding(), self._head(name) as file, Image.open(file) as image:
            decode.small_enough(image)
            orientation = decode.orientation(image)
            if orientation != UPRIGHT:
                self.turned.add(name)
            return (image.width, image.height) if orientation in SIDEWAYS else (image.height, image.width)

    def picture(self, picture: Picture) -> NDArray[np.uint8]:
        """The picture (height, width, 3) uint8, turned as its EXIF orientation says and every viewer shows it; where
        the annotation's size is that of the picture as it is stored, and of no other, as it is stored.

        Raises:
            DecodeError: when it cannot be read, or has another size.
        """
        with decode.decoding(), Image.open(io.BytesIO(self.packed(picture.file))) as image:
            decode.small_enough(image)
            shown = decode.upright(image) if self._turns(image, picture) else image
            return np.asarray(decode.to_rgb_or_grey(shown).convert("RGB"))

    def _turns(self, image: Image.Image, picture: Picture) -> bool:
        """Whether a picture is turned by its EXIF orientation: the one rule for whatever reads pictures of persons.

        Raises:
            DecodeError: it has another size than the annotation says, turned or not.
        """
        orientation, wanted = decode.orientation(image), (picture.width, picture.height)
        turned = image.size[::-1] if orientation in SIDEWAYS else image.size
        if turned != wanted != image.size:
            raise decode.DecodeError(_other_size(image.height, image.width, picture))
        if orientation != UPRIGHT and turned == image.size:
            self.turned.add(picture.file)
        return orientation != UPRIGHT and turned == wanted

    def packed(self, name: str) -> bytes:
        """The bytes of a picture's file; no more than a picture has.

        Raises:
            TooLarge: it is larger, and what reading raises.
        """
        if self.archive:
            return self.archive.read(self._member(name), MOST_PICTURE)
        if (length := self._plain(name).stat().st_size) > MOST_PICTURE:
            raise TooLarge(f"it is {length // 10**6} MB large, more than any picture that is decoded")
        return self._plain(name).read_bytes()

    def complaint(self, picture: Picture) -> str | None:
        """Why :meth:`picture` cannot give the picture, as far as the file's head tells; None where nothing is wrong."""
        try:
            with decode.decoding(), self._head(picture.file) as file, Image.open(file) as image:
                decode.small_enough(image)
                self._turns(image, picture)
            if self._looks_cut(picture.file):
                self.picture(picture)
        except decode.DecodeError as error:
            return str(error)
        return None

    def _looks_cut(self, name: str) -> bool:
        """Whether a file of a folder ends without the mark that its format ends with."""
        if self.archive or (mark := _LAST.get(Path(name).suffix.lower())) is None:
            return False
        with decode.decoding(), self._plain(name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _EDGE))
            return mark not in file.read(_EDGE)

    def _head(self, name: str) -> IO[bytes]:
        """The file, opened: only what is read of it is unpacked."""
        return self.archive.open(self._member(name)) if self.archive else self._plain(name).open("rb")

    def digest(self, names: Sequence[str]) -> str:
        """SHA-256 (hex) of the names and contents: an archive's checksums; else lengths, and the first and last 4 KiB
        (of 10,000 files spread evenly where there are more)."""
        total = hashlib.sha256()
        step = max(1, -(-len(names) // _MOST_EDGES))
        for place, name in enumerate(names):
            if self.archive:
                length, checksum = self.archive.mark(self._member(name))
                total.update(f"|{name} {length} {checksum}".encode())
                continue
            path = self._plain(name)
            length = path.stat().st_size
            total.update(f"|{name} {length}|".encode())
            if place % step == 0:
                with path.open("rb") as file:
                    total.update(file.read(_EDGE))
                    file.seek(max(_EDGE, length - _EDGE))
                    total.update(file.read(_EDGE))
        return total.hexdigest()

    def _member(self, name: str) -> str:
        return f"{self.inside}/{name}" if self.inside else name

    def _plain(self, name: str) -> Path:
        return self.path / self.inside / name


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is left to us: Pillow turns a TIFF itself, and gives the size it will have."""
    return UPRIGHT if image.format == "TIFF" else decode.orientation(image)


def _other_size(height: int, width: int, picture: Picture) -> str:
    return f"it is {width}x{height} pixels, its annotation says {picture.width}x{picture.height}"


def _in_threads(work: Callable[[list[int]], None], jobs: Sequence[Job]) -> None:
    """Give ``work`` the places of the jobs, those of one picture together, in several threads."""
    together: dict[str, list[int]] = {}
    for place, (picture, _, _) in enumerate(jobs):
        together.setdefault(picture.file, []).append(place)
    with ThreadPoolExecutor(pool_size(), thread_name_prefix="decode") as pool:
        for _ in pool.map(work, together.values()):
            pass


def cut_all(store: Store, jobs: Sequence[Job], canvas: Canvas) -> tuple[Tensor, dict[int, str]]:
    """The canvases (n, 3, S, S) uint8 of ``jobs``, and why some could not be made, by their place."""
    canvases = np.zeros((len(jobs), 3, canvas.side, canvas.side), np.uint8)
    bad: dict[int, str] = {}

    def work(places: list[int]) -> None:
        try:
            image = store.picture(jobs[places[0]][0])
        except decode.DecodeError as error:
            bad.update(dict.fromkeys(places, str(error)))
            return
        for place in places:
            canvases[place] = render(image, jobs[place][1], jobs[place][2], canvas)

    _in_threads(work, jobs)
    return torch.from_numpy(canvases), bad


def look_at_all(store: Files, jobs: Sequence[Job], *, whole: bool = False) -> dict[int, str]:
    """Why some of the ``jobs`` cannot be cut, by their place, as far as the ends of the picture files tell; with
    ``whole`` every picture is decoded once, so that none can stop the training later."""
    bad: dict[int, str] = {}

    def work(places: list[int]) -> None:
        picture = jobs[places[0]][0]
        if (why := store.complaint(picture)) is None and whole:
            try:
                store.picture(picture)
            except decode.DecodeError as error:
                why = str(error)
        if why is not None:
            bad.update(dict.fromkeys(places, why))

    _in_threads(work, jobs)
    return bad


class CropPixels(ReadPixels):
    """Canvases that are cut out of their picture files each time they are asked for: ``origin`` (N, 2), ``step`` (N,)
    and one picture for each."""

    decodes = True

    def __init__(
        self,
        store: Files,
        pictures: Sequence[Picture],
        origin: Floats,
        step: Floats,
        canvas: Canvas,
        device: Device = "cpu",
    ) -> None:
        assert len(pictures) == len(origin) == len(step)
        super().__init__((3, canvas.side, canvas.side), device)
        self.store, self.pictures, self.canvas = store, tuple(pictures), canvas
        self.origin, self.step = origin, step

    def __len__(self) -> int:
        return len(self.pictures)

    def fetch(self, index: Tensor) -> Tensor:
        """The canvases ``index`` (B,) int64 -> (B, 3, S, S) uint8 on ``device``.

        Raises:
            UserError: naming the file, when one cannot be decoded.
        """
        jobs: list[Job] = [(self.pictures[row], self.origin[row], float(self.step[row])) for row in index.tolist()]
        canvases, bad = cut_all(self.store, jobs, self.canvas)
        if bad:
            place = min(bad)
            raise UserError(f"data: {self.store.path}: {jobs[place][0].file} cannot be used: {bad[place]}. Mend it")
        return self._moved(canvases)
