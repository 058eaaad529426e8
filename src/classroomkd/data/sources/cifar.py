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
from classroomkd.data.sources.base import Folder, Raw, Request, Source, fingerprint, first_of, memory
from classroomkd.errors import UserError

__all__ = ["open_cifar10", "open_cifar100"]

Images = NDArray[np.uint8]
Read = Callable[[str], bytes]

_PIXELS = 3 * 32 * 32
_MEMBER = 60_000 * (_PIXELS + 64)  # bytes of a file in an archive: all images of a data set in one, with their names


@dataclass(frozen=True)
class _Layout:
    """One of the two official forms of a data set: how its files are called, by part, and where they lie."""

    files: Mapping[str, tuple[str, ...]]
    names: str  # the file of class names
    folder: str
    archive: str

    @property
    def wanted(self) -> frozenset[str]:
        """Every file that is read of an archive."""
        return frozenset(name for files in self.files.values() for name in files) | {self.names}


@dataclass(frozen=True)
class _Kind:
    """What is particular to one of the two data sets."""

    name: str
    classes: int
    binary: _Layout
    label_bytes: int  # bytes before the pixels of a binary record; the last one is the class
    python: _Layout
    python_names: str  # the key of the class names
    python_label: str


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_CIFAR10 = _Kind(
    "cifar10", 10,
    _Layout({"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, "batches.meta.txt",
            "cifar-10-batches-bin", "cifar-10-binary.tar.gz"), 1,
    _Layout({"train": _BATCHES, "test": ("test_batch",)}, "batches.meta",
            "cifar-10-batches-py", "cifar-10-python.tar.gz"), "label_names", "labels",
)  # fmt: skip
_CIFAR100 = _Kind(
    "cifar100", 100,
    _Layout({"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt",
            "cifar-100-binary", "cifar-100-binary.tar.gz"), 2,
    _Layout({"train": ("train",), "test": ("test",)}, "meta",
            "cifar-100-python", "cifar-100-python.tar.gz"), "fine_label_names", "fine_labels",
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
    chosen = [number * kind.classes // count for number in range(count)]  # evenly spaced over the official order
    names = tuple(names[number] for number in chosen)
    place = np.full(kind.classes, -1, np.int64)
    place[chosen] = np.arange(count)
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
        parts[part] = memory(images, target, request, kind.name)
        arrays += [images, target]
    text = f"{kind.name} size={request.size}"
    return Source(kind.name, names, parts, "crop_flip", fingerprint(text, *arrays), tuple(notes))


def _find(kind: _Kind, folder: Folder) -> _Content:
    path = folder.path
    if path.is_file():
        if not path.name.endswith((".tar.gz", ".tgz", ".tar")):
            raise UserError(f"data: {path} is a file; give the official .tar.gz or the folder that holds the data")
        layout, decoded = (kind.python, _python) if "python" in path.name else (kind.binary, _binary)
        return decoded(kind, _archive(path, layout.wanted), path)
    for layout, decoded in ((kind.binary, _binary), (kind.python, _python)):
        for inner in (path, path / layout.folder):
            if (inner / layout.files["train"][0]).is_file():
                return decoded(kind, _files(inner), inner)
        archive = path / layout.archive
        if archive.is_file():
            return decoded(kind, _archive(archive, layout.wanted), archive)
    if kind.classes == 100 and cifar_strips.present(path):
        names, parts = cifar_strips.read(path)
        return _Content(names, parts)
    binary, python = kind.binary, kind.python
    wanted = f"{binary.files['train'][0]}, {binary.folder}/, {binary.archive}, {python.folder}/, {python.archive}"
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
    others: set[str] = set()
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
                    if not member.isfile():
                        continue
                    if name not in wanted:
                        others.add(name)
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
            raise UserError(f"data: {path} lacks {name}; it holds {first_of(sorted({*members, *others})) or 'nothing'}")
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
    for part, files in kind.binary.files.items():
        images, targets = [], []
        for name in files:
            data = np.frombuffer(read(name), np.uint8)
            if data.size == 0 or data.size % record:
                raise UserError(
                    f"data: {where}/{name} has {data.size} bytes, not a multiple of {record}: it is cut off;"
                    " fetch it again"
                )
            rows = data.reshape(-1, record)
            targets.append(rows[:, kind.label_bytes - 1].astype(np.int64))
            images.append(rows[:, kind.label_bytes :].reshape(-1, 3, 32, 32))
        parts[part] = (np.concatenate(images), np.concatenate(targets))
    return _Content(_checked_names(kind, _names(read, kind.binary.names)), parts)


def _python(kind: _Kind, read: Read, where: Path) -> _Content:
    parts = {}
    for part, files in kind.python.files.items():
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
    file = kind.python.names
    try:
        meta = restricted_pickle.load(io.BytesIO(read(file)), f"{where}/{file}")
    except restricted_pickle.RefusedError:
        raise
    except UserError:
        return _Content(None, parts)
    names = meta.get(kind.python_names)
    return _Content(_checked_names(kind, tuple(map(str, names)) if isinstance(names, list) else None), parts)


def _is_pixels(value: Any) -> TypeGuard[Images]:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 2 and value.shape[1] == _PIXELS


def _checked_names(kind: _Kind, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return names if names is not None and len(names) == kind.classes == len(set(names)) else None
