"""Small files that would become enormous: refused by what they declare, and read no further than that."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data
from classroomkd._limits import MOST_PIXELS, CutOff, TooLarge, check_pixels, check_unpacked, read_exactly
from classroomkd.data.decode import DecodeError, decode, oriented_size
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.mpii import read_official
from classroomkd.data.keypoints.people import Picture
from classroomkd.data.sources import restricted_pickle
from classroomkd.data.sources.fashion_mnist import read_idx
from classroomkd.errors import UserError
from classroomkd.models.checkpoints import read_checkpoint

MIB = 2**20


@contextmanager
def little(most: int = 24 * MIB) -> Iterator[None]:
    """What Python and numpy take at most inside the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"{peak / MIB:.0f} MiB"


def zeros(count: int) -> Iterator[bytes]:
    """So many zero bytes, in pieces."""
    piece = bytes(MIB)
    for _ in range(count // MIB):
        yield piece
    yield bytes(count % MIB)


def packed(path: Path, start: bytes, count: int) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(start)
        for piece in zeros(count):
            file.write(piece)


def idx_head(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


# --- Declared and real lengths ---------------------------------------------------------------------------------------


def test_what_is_declared_is_bounded_by_what_it_takes() -> None:
    check_unpacked(64 * MIB, 1)
    check_unpacked(500 * MIB, 5 * MIB)
    with pytest.raises(TooLarge, match=r"it unpacks to 64\.0 MiB from 0\.0 MiB"):
        check_unpacked(64 * MIB + 1, 1000)
    with pytest.raises(TooLarge):
        check_unpacked(501 * MIB, 5 * MIB)
    with pytest.raises(TooLarge):
        check_unpacked(11, 10, most=10)


def test_reading_ends_where_it_was_declared_to() -> None:
    file = io.BytesIO(bytes(100))
    with pytest.raises(TooLarge, match="more than the 10 bytes"):
        read_exactly(file, 10)
    assert file.tell() == 11
    with pytest.raises(CutOff, match="after 100 of 101 bytes"):
        read_exactly(io.BytesIO(bytes(100)), 101)


# --- idx ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 28, 28), (300_000, 28, 28), (2**32 - 1,) * 3])
def test_an_idx_file_no_larger_than_its_head_says(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Of 160 MB of zeros: behind what the head says, and as much as it says, and less."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    packed(path, idx_head(*shape), 160 * MIB)
    assert path.stat().st_size < MIB
    with little(), pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz cannot be read .* fetch it again"):
        read_idx(path, 3)


# --- CIFAR's archives -----------------------------------------------------------------------------------------------


def tar(path: Path, members: list[tuple[str, int]], kind: bytes = tarfile.REGTYPE) -> None:
    with gzip.open(path, "wb", 1) as file:
        for name, size in members:
            head = tarfile.TarInfo(name)
            head.size, head.type = size, kind
            file.write(head.tobuf(tarfile.GNU_FORMAT))
            for piece in zeros(-(-size // 512) * 512):
                file.write(piece)
        file.write(bytes(1024))


def test_a_tar_member_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar(path, [("unread", 160 * MIB), ("data_batch_1.bin", 3073), ("test_batch.bin", 3073)])
    with (
        little(),
        pytest.raises(UserError, match=r"lacks data_batch_2\.bin; it holds data_batch_1\.bin, test_batch\.bin"),
    ):
        data.load(f"cifar10:{path}")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_member_of_any_kind_that_is_too_large(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar(path, [("data_batch_1.bin", 200 * MIB)], kind)
    with little(), pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz is damaged or no archive .*declares"):
        data.load(f"cifar10:{path}")


def test_the_archives_own_checksum_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar(path, [("data_batch_1.bin", 3073)])
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged or no archive"):
        data.load(f"cifar10:{path}")


def test_a_pickle_cannot_ask_for_an_array_of_any_size() -> None:
    made = b"cnumpy\nndarray\n((I10000000000\nttR."
    with little(), pytest.raises(UserError, match="not a readable pickle"):
        restricted_pickle.load(io.BytesIO(made), "data_batch_1")


def test_a_strip_in_a_zip(tmp_path: Path) -> None:
    for name in ("cifar100_train_0.zip", "cifar100_test.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("train/00_apple.webp", bytes(160 * MIB))
    with little(), pytest.raises(UserError, match=r"cifar100_train_0\.zip is damaged .*160\.0 MiB"):
        data.load(f"cifar100:{tmp_path}")


# --- Zips of persons ------------------------------------------------------------------------------------------------


def zipped(path: Path, name: str, content: Callable[[], Iterator[bytes]]) -> Files:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(name, "w") as file:
        for piece in content():
            file.write(piece)
    return Files(path)


def test_a_zip_member(tmp_path: Path) -> None:
    store = zipped(tmp_path / "all.zip", "person_keypoints_train2017.json", lambda: zeros(160 * MIB))
    with (
        little(),
        pytest.raises(UserError, match=r"all\.zip: person_keypoints_train2017\.json cannot be read: it unpacks"),
    ):
        store.read("person_keypoints_train2017.json")
    with little(), pytest.raises(UserError, match="person_keypoints_train2017"):
        data.load(f"coco-keypoints:{tmp_path / 'all.zip'}", task="pose")


def test_a_picture_in_a_zip(tmp_path: Path) -> None:
    store = zipped(tmp_path / "all.zip", "a.png", lambda: zeros(160 * MIB))
    with little(), pytest.raises(DecodeError, match="it unpacks to"):
        store.picture(Picture(0, "a.png", 10, 10))


def test_a_zip_that_is_damaged_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("train.json", b"x" * 1000)
    content = bytearray((tmp_path / "all.zip").read_bytes())
    content[60] ^= 1
    (tmp_path / "all.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"all\.zip: train\.json cannot be read: Bad CRC"):
        Files(tmp_path / "all.zip").read("train.json")


def test_a_matlab_file(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    content = bytes(124) + b"\x00\x01IM"
    for _ in range(3):
        element = zlib.compress(bytes(80 * MIB), 1)
        content += struct.pack("<II", 15, len(element)) + element
    with little(), pytest.raises(UserError, match=r"gt_valid\.mat is not MPII's .*unpacks to"):
        read_official(content, "gt_valid.mat")


# --- Pictures -------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, width: int, height: int) -> None:
    """A valid head of an RGB picture, and what its first rows may be."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be decoded."""

    def load(self: Image.Image) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


def test_a_picture_of_too_many_pixels(tmp_path: Path, undecoded: None) -> None:
    assert MOST_PIXELS == 64_000_000
    png(tmp_path / "a.png", 8001, 8000)
    for look in (lambda: decode(tmp_path / "a.png", 32, "crop"), lambda: oriented_size(tmp_path / "a.png")):
        with pytest.raises(
            DecodeError, match="it has 8001x8000 pixels, 64 million; at most 64 million are decoded: make"
        ):
            look()
    store = Files(tmp_path)
    for look in (lambda: store.picture(Picture(0, "a.png", 8001, 8000)), lambda: store.size("a.png")):
        with pytest.raises(DecodeError, match="8001x8000"):
            look()
    png(tmp_path / "b.png", 60_000, 60_000)  # more than Pillow itself opens
    for look in (lambda: decode(tmp_path / "b.png", 32, "crop"), lambda: store.size("b.png")):
        with pytest.raises(
            DecodeError, match="more than 64 million pixels, of which none are decoded: make it smaller"
        ):
            look()
    check_pixels(8000, 8000)


def test_a_picture_file_of_too_many_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp"):
        os.truncate(os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY), 257 * 10**6)
    with pytest.raises(DecodeError, match="larger than 256 MB"):
        decode(tmp_path / "a.png", 32, "crop")
    with pytest.raises(DecodeError, match="257 MB"):
        Files(tmp_path).picture(Picture(0, "b.bmp", 10, 10))


@pytest.mark.parametrize("memory", [2.0, 0.0])
@pytest.mark.parametrize("size", [32, None])
def test_a_folder_with_such_a_picture(tmp_path: Path, memory: float, size: int | None) -> None:
    """In memory and on demand: named, or counted as unreadable."""
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(6):
            Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / kind / f"{number}.png")
    png(tmp_path / "cat" / "9.png", 9000, 9000)
    spec = {"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": memory}, **({"size": size} if size else {})}
    with pytest.raises(UserError, match=r"1 image cannot be decoded: .*cat/9\.png: it has 9000x9000 pixels"):
        data.load(spec)
    images = data.load({**spec, "unreadable": "skip"})
    assert sum(len(part) for part in (images.train, images.val, images.test)) == 12
    assert any("1 unreadable image skipped: cat/9.png" in note for note in images.notes)


# --- Checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_packed(tmp_path: Path) -> None:
    """torch stores without packing; an archive that is packed all the same may not become more than real data do."""
    torch.save({"weight": torch.zeros(4)}, tmp_path / "small.pth")
    with zipfile.ZipFile(tmp_path / "small.pth") as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    for name, size in (("ok.pth", 16), ("bomb.pth", 160 * MIB)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for member, content in members.items():
                archive.writestr(member, bytes(size) if member.endswith("data/0") else content)
    assert read_checkpoint(tmp_path / "ok.pth")[0]["weight"].shape == (4,)
    with (
        little(),
        pytest.raises(UserError, match=r"bomb\.pth of the student is no checkpoint: .*data/0: it unpacks to 160"),
    ):
        read_checkpoint(tmp_path / "bomb.pth")


def test_json_of_annotations_is_read_as_before(tmp_path: Path) -> None:
    """Text with much repetition, as annotations have, is far from the bound."""
    content = json.dumps([{"keypoints": [0] * 51, "image_id": n} for n in range(20_000)]).encode()
    store = zipped(tmp_path / "all.zip", "a.json", lambda: iter([content]))
    assert store.read("a.json") == content
