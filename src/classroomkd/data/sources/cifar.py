"""Sources ``cifar10:DIR`` and ``cifar100:DIR``: the official archives, packed or unpacked, and CIFAR-100 as WebP
strips in zips.

Tried in this order inside DIR (DIR may also be the archive itself): binary folder, binary ``.tar.gz``, python folder,
python ``.tar.gz``, zips. Archives are read in memory; nothing is unpacked on disk. Krizhevsky, *Learning Multiple
Layers of Features from Tiny Images*, 2009: the authors ask to be cited.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from classroomkd._limits import TooLarge
from classroomkd.data.sources import cifar_strips, restricted_pickle
from classroomkd.data.sources.base import Folder, Raw, Request, Source, fingerprint, memory
from classroomkd.errors import UserError

__all__ = ["open_cifar10", "open_cifar100"]

Images = NDArray[np.uint8]
Read = Callable[[str], bytes]

_PIXELS = 3 * 32 * 32
_MEMBER = 60_000 * (_PIXELS + 64)  # bytes of a file in an archive: all images of a data set in one, with their names


@dataclass(frozen=True)
class _Kind:
    """What is particular to one of the two data sets."""

    name: str
    classes: int
    stem: str  # of the archives and folders
    binary: Mapping[str, tuple[str, ...]]
    binary_names: str
    label_bytes: int  # bytes before the pixels of a record; the last one is the class
    python: Mapping[str, tuple[str, ...]]
    python_names: tuple[str, str]  # file, key
    python_label: str

    @staticmethod
    def wanted(parts: Mapping[str, tuple[str, ...]], names: str) -> frozenset[str]:
        """Every file that is read of an archive."""
        return frozenset(name for files in parts.values() for name in files) | {names}


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_CIFAR10 = _Kind(
    "cifar10", 10, "cifar-10",
    {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, "batches.meta.txt", 1,
    {"train": _BATCHES, "test": ("test_batch",)}, ("batches.meta", "label_names"), "labels",
)  # fmt: skip
_CIFAR100 = _Kind(
    "cifar100", 100, "cifar-100",
    {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", 2,
    {"train": ("train",), "test": ("test",)}, ("meta", "fine_label_names"), "fine_labels",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Content:
    """Decoded data: class names (or none) and per part images (N, 3, 32, 32) with classes (N,) int64."""

    names: tuple[str, ...] | None
    parts: Mapping[str, tuple[Images, NDArray[np.int64]]]


def open_cifar10(argument: str, request: Request) -> Source:
    """CIFAR-10 from the folder or archive ``argument``."""
    return _open(_CIFAR10, argument, request)


def open_cifar100(argument: str, request: Request) -> Source:
    """CIFAR-100 (fine labels) from the folder or archive ``argument``."""
    return _open(_CIFAR100, argument, request)


def _open(kind: _Kind, argument: str, request: Request) -> Source:
    folder = Folder(argument, kind.name)
    content = _find(kind, folder)
    notes = ["CIFAR images: the authors ask to be cited (Krizhevsky, 2009); no licence is stated"]
    names = content.names
    if names is None:
        names = tuple(str(number) for number in range(kind.classes))
        notes.append(f"{kind.name}: no file with class names was found beside the data, so classes are numbered")
    count = int(request.options.get("classes", kind.classes))
    if not 2 <= count <= kind.classes:
        raise UserError(f"data.options.classes = {count}: {kind.name} has {kind.classes}; give a number from 2 to that")
    kept = [number * kind.classes // count for number in range(count)]  # evenly spaced over the official order
    names = tuple(names[number] for number in kept)
    place = np.full(kind.classes, -1, np.int64)
    place[kept] = np.arange(count)
    parts: dict[str, Raw] = {}
    arrays: list[NDArray[Any]] = []
    for part, (images, target) in content.parts.items():
        if target.size == 0 or int(target.min()) < 0 or int(target.max()) >= kind.classes:
            raise UserError(
                f"data: {folder.path}: the {part} part has no images or labels outside 0 to {kind.classes - 1}"
            )
        if count < kind.classes:
            rows = place[target] >= 0
            images, target = images[rows], place[target[rows]]
        parts[part] = memory(images, target, request.size, kind.name)
        arrays += [images, target]
    text = f"{kind.name} size={request.size}"
    return Source(kind.name, names, parts, "crop_flip", fingerprint(text, *arrays), tuple(notes))


def _find(kind: _Kind, folder: Folder) -> _Content:
    path = folder.path
    if path.is_file():
        if path.name.endswith((".tar.gz", ".tgz", ".tar")):
            if "python" in path.name:
                return _python(kind, _archive(path, kind.wanted(kind.python, kind.python_names[0])), path)
            return _binary(kind, _archive(path, kind.wanted(kind.binary, kind.binary_names)), path)
        raise UserError(f"data: {path} is a file; give the official .tar.gz or the folder that holds the data")
    first_binary, first_python = kind.binary["train"][0], kind.python["train"][0]
    unpacked_python = f"{kind.stem}-batches-py" if kind.classes == 10 else f"{kind.stem}-python"
    unpacked_binary = f"{kind.stem}-batches-bin" if kind.classes == 10 else f"{kind.stem}-binary"
    for inner in (path, path / unpacked_binary):
        if (inner / first_binary).is_file():
            return _binary(kind, _files(inner), inner)
    binary_archive = path / f"{kind.stem}-binary.tar.gz"
    if binary_archive.is_file():
        return _binary(kind, _archive(binary_archive, kind.wanted(kind.binary, kind.binary_names)), binary_archive)
    for inner in (path, path / unpacked_python):
        if (inner / first_python).is_file():
            return _python(kind, _files(inner), inner)
    python_archive = path / f"{kind.stem}-python.tar.gz"
    if python_archive.is_file():
        return _python(kind, _archive(python_archive, kind.wanted(kind.python, kind.python_names[0])), python_archive)
    if kind.classes == 100 and cifar_strips.present(path):
        names, parts = cifar_strips.read(path)
        return _Content(names, parts)
    wanted = f"{first_binary}, {unpacked_binary}/, {binary_archive.name}, {unpacked_python}/, {python_archive.name}"
    raise folder.missing(wanted + (" or cifar100_train_0.zip" if kind.classes == 100 else ""))


def _files(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"data: {folder} lacks {name}; it holds {Folder.inside(folder)}") from error

    return read


class _Pieces(io.RawIOBase):
    """A stream of which nobody gets more at once than a member of an official archive holds.

    A tar archive's reader takes the length of a long name or a note from the archive, and would read as much.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """See ``io.RawIOBase.read``."""
        if size is None or not 0 <= size <= _MEMBER:
            raise TooLarge(f"an entry of it declares more than {_MEMBER:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """See ``io.RawIOBase.seek``."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See ``io.RawIOBase.tell``."""
        return self._file.tell()


def _archive(path: Path, wanted: frozenset[str]) -> Read:
    """Reads members by their last name, whatever folder the archive puts them in; those ``wanted`` are read into memory
    once, others are skipped."""
    members: dict[str, bytes] = {}
    others: list[str] = []
    try:
        with path.open("rb") as packed:
            zipped = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            with (
                gzip.open(packed) if zipped else packed as plain,
                tarfile.open(fileobj=_Pieces(cast(IO[bytes], plain)), mode="r:") as archive,
            ):
                while (member := archive.next()) is not None:
                    name = Path(member.name).name
                    if not member.isfile() or name not in wanted:
                        others += [name] if member.isfile() else []
                        continue
                    if member.size > _MEMBER:
                        raise TooLarge(f"{member.name} declares {member.size:,} bytes, more than {_MEMBER:,}")
                    opened = archive.extractfile(member)
                    assert opened is not None
                    members[name] = opened.read()
                while plain.read(2**20):
                    pass  # to the end, where the archive's checksum is
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"data: {path} is damaged or no archive ({error}); fetch it again") from error

    def read(name: str) -> bytes:
        if name not in members:
            there = sorted({*members, *others})
            shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
            raise UserError(f"data: {path} lacks {name}; it holds {shown or 'nothing'}")
        return members[name]

    return read


def _names(read: Read, name: str) -> tuple[str, ...] | None:
    try:
        return tuple(line.strip() for line in read(name).decode().splitlines() if line.strip())
    except UserError:
        return None


def _binary(kind: _Kind, read: Read, where: Path) -> _Content:
    record = kind.label_bytes + _PIXELS
    parts = {}
    for part, files in kind.binary.items():
        images, targets = [], []
        for name in files:
            data = np.frombuffer(read(name), np.uint8)
            if data.size == 0 or data.size % record:
                raise UserError(
                    f"data: {where}/{name} has {data.size} bytes, not a multiple of {record}: it is cut off;"
                    f" fetch it again"
                )
            rows = data.reshape(-1, record)
            targets.append(rows[:, kind.label_bytes - 1].astype(np.int64))
            images.append(rows[:, kind.label_bytes :].reshape(-1, 3, 32, 32))
        parts[part] = (np.concatenate(images), np.concatenate(targets))
    return _Content(_checked_names(kind, _names(read, kind.binary_names)), parts)


def _python(kind: _Kind, read: Read, where: Path) -> _Content:
    parts = {}
    for part, files in kind.python.items():
        images, targets = [], []
        for name in files:
            place = f"{where}/{name}"
            batch = restricted_pickle.load(io.BytesIO(read(name)), place)
            rows, labels = batch.get("data"), batch.get(kind.python_label)
            if not _is_pixels(rows) or not isinstance(labels, list) or len(labels) != len(rows):
                raise UserError(
                    f"data: {place} is not a {kind.name} batch: it needs 'data' (N, {_PIXELS}) of bytes and a list"
                    f" '{kind.python_label}' as long"
                )
            images.append(rows.reshape(-1, 3, 32, 32))
            targets.append(np.array(labels, np.int64))
        parts[part] = (np.concatenate(images), np.concatenate(targets))
    file, key = kind.python_names
    try:
        meta = restricted_pickle.load(io.BytesIO(read(file)), f"{where}/{file}")
    except UserError as error:
        if not isinstance(error, restricted_pickle.RefusedError):
            return _Content(None, parts)
        raise
    names = meta.get(key)
    return _Content(_checked_names(kind, tuple(map(str, names)) if isinstance(names, list) else None), parts)


def _is_pixels(value: Any) -> TypeGuard[Images]:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 2 and value.shape[1] == _PIXELS


def _checked_names(kind: _Kind, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return names if names is not None and len(names) == kind.classes == len(set(names)) else None
