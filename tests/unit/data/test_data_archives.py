"""Fashion-MNIST and CIFAR from small made-up files of the official layouts."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data
from classroomkd.data.images import ImageSet
from classroomkd.data.sources import restricted_pickle
from classroomkd.errors import UserError

TRAIN, TEST = 200, 100  # every class once or more, for 100 classes


def made(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % classes


def everything(images: ImageSet, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of the source's train (train + val) or test part in the order of their ids."""
    parts = [images.train, images.val] if train else [images.test]
    batches = [part.batch(torch.arange(len(part))) for part in parts]
    pixels, target, ids = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    order = np.argsort(ids)
    return pixels[order], target[order]


def check(images: ImageSet, classes: int) -> None:
    for train, count, seed in ((True, TRAIN, 1), (False, TEST, 2)):
        pixels, target = everything(images, train)
        want, labels = made(count, classes, seed)
        assert np.array_equal(pixels, want)
        assert np.array_equal(target, labels)


# --- Fashion-MNIST --------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, gzipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count, seed in (("train", TRAIN, 1), ("t10k", TEST, 2)):
        images, target = made(count, 10, seed)
        for name, array in (("images-idx3", images[:, 0, 2:30, 2:30]), ("labels-idx1", target.astype(np.uint8))):
            content = idx(array)
            path = folder / f"{stem}-{name}-ubyte{'.gz' if gzipped else ''}"
            path.write_bytes(gzip.compress(content, 1) if gzipped else content)


@pytest.mark.parametrize("within", ["", "FashionMNIST/raw", "raw"])
@pytest.mark.parametrize("gzipped", [True, False])
def test_fashion_mnist(tmp_path: Path, within: str, gzipped: bool) -> None:
    write_fashion(tmp_path / within, gzipped)
    images = data.load({"source": f"fashion-mnist:{tmp_path}", "resize": "pad"})
    assert images.classes[9] == "ankle boot"
    assert images.shape == (3, 32, 32)
    pixels, target = everything(images, train=True)
    want, labels = made(TRAIN, 10, 1)
    assert np.array_equal(pixels[:, 2, 2:30, 2:30], want[:, 0, 2:30, 2:30])
    assert np.array_equal(target, labels)
    assert images.test.ids.tolist() == list(range(TRAIN, TRAIN + TEST))


@pytest.mark.parametrize(
    ("first", "note"),
    [
        ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "those of MNIST's digits"),
        ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], None),
        ([8, 7, 0, 1, 4, 2, 4, 8, 1, 1], "not those of Fashion-MNIST"),
    ],
)
def test_files_of_the_same_names_are_noted(tmp_path: Path, first: list[int], note: str | None) -> None:
    write_fashion(tmp_path, gzipped=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[8 : 8 + len(first)] = bytes(first)
    path.write_bytes(content)
    notes = [
        said for said in data.load({"source": f"fashion-mnist:{tmp_path}", "size": 32}).notes if "labels in" in said
    ]
    assert [note in said for said in notes if note] == [True] * (note is not None)
    assert bool(notes) == (note is not None)


def test_fashion_mnist_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for train-images-idx3-ubyte.*found nothing"):
        data.load(f"fashion-mnist:{tmp_path}")
    write_fashion(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content, message in (
        (whole[:2000], "train-images-idx3-ubyte.gz cannot be read"),
        (gzip.compress(gzip.decompress(whole)[:-5]), "it is cut off"),
        (gzip.compress(b"not idx at all"), "is not an idx file"),
        (gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))), "3 images, but 200 labels"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            data.load(f"fashion-mnist:{tmp_path}")
    path.write_bytes(whole)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(TEST, 10, np.uint8))))
    with pytest.raises(UserError, match="label 10"):
        data.load(f"fashion-mnist:{tmp_path}")


# --- CIFAR ----------------------------------------------------------------------------------------------------------


def binary_files(classes: int) -> dict[str, bytes]:
    files = {}
    for part, count, seed in (("train", TRAIN, 1), ("test", TEST, 2)):
        images, target = made(count, classes, seed)
        columns = [target.astype(np.uint8)[:, None], images.reshape(count, -1)]
        if classes == 100:
            columns.insert(0, np.full((count, 1), 77, np.uint8))  # the coarse label, to be passed by
        rows = np.concatenate(columns, 1)
        if classes == 100:
            files[f"{part}.bin"] = rows.tobytes()
        elif part == "train":
            files.update({f"data_batch_{k + 1}.bin": some.tobytes() for k, some in enumerate(np.split(rows, 5))})
        else:
            files["test_batch.bin"] = rows.tobytes()
    names = "\n".join(f"class{k}" for k in range(classes)) + "\n\n"
    files["fine_label_names.txt" if classes == 100 else "batches.meta.txt"] = names.encode()
    return files


def python_files(classes: int) -> dict[str, bytes]:
    files = {}
    label = b"fine_labels" if classes == 100 else b"labels"
    for part, count, seed in (("train", TRAIN, 1), ("test", TEST, 2)):
        images, target = made(count, classes, seed)
        rows = images.reshape(count, -1)
        pieces = 5 if classes == 10 and part == "train" else 1
        for k in range(pieces):
            some = slice(k * count // pieces, (k + 1) * count // pieces)
            name = part if classes == 100 else f"data_batch_{k + 1}" if part == "train" else "test_batch"
            batch = {b"data": rows[some], label: target[some].tolist(), b"filenames": [b"a.png"] * len(target[some])}
            files[name] = pickle.dumps(batch, protocol=2)
    key = "fine_label_names" if classes == 100 else "label_names"
    meta = {key.encode(): [f"class{k}".encode() for k in range(classes)]}
    files["meta" if classes == 100 else "batches.meta"] = pickle.dumps(meta, protocol=2)
    return files


def write_tar(path: Path, files: dict[str, bytes], folder: str) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)


KINDS: dict[str, Callable[[int], dict[str, bytes]]] = {"binary": binary_files, "python": python_files}
FOLDERS = {(10, "binary"): "cifar-10-batches-bin", (10, "python"): "cifar-10-batches-py",
           (100, "binary"): "cifar-100-binary", (100, "python"): "cifar-100-python"}  # fmt: skip


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("form", ["archive in folder", "archive itself", "folder in folder", "folder itself"])
def test_cifar(tmp_path: Path, classes: int, kind: str, form: str) -> None:
    files, inner = KINDS[kind](classes), FOLDERS[classes, kind]
    where = tmp_path
    if form.startswith("archive"):
        archive = tmp_path / f"cifar-{classes}-{kind}.tar.gz"
        write_tar(archive, files, inner)
        where = archive if form == "archive itself" else tmp_path
    else:
        write_folder(tmp_path / inner, files)
        where = tmp_path / inner if form == "folder itself" else tmp_path
    images = data.load({"source": f"cifar{classes}:{where}", "val_fraction": 0.3})
    check(images, classes)
    assert images.classes == tuple(f"class{k}" for k in range(classes))
    assert images.views == "crop_flip"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {archive.name} if form.startswith("archive") else {inner}
    )  # nothing was unpacked


def test_binary_and_python_are_the_same_data(tmp_path: Path) -> None:
    prints = []
    for kind, make in KINDS.items():
        write_folder(tmp_path / kind, make(100))
        prints.append(data.load({"source": f"cifar100:{tmp_path / kind}", "val_fraction": 0.3}).fingerprint)
    assert prints[0] == prints[1]


def test_cifar100_strips(tmp_path: Path) -> None:
    per_part = {"train": (TRAIN, 1), "test": (TEST, 2)}
    for part, (count, seed) in per_part.items():
        images, target = made(count, 100, seed)
        for piece in range(2 if part == "train" else 1):
            name = f"cifar100_train_{piece}.zip" if part == "train" else "cifar100_test.zip"
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                for label in range(100):
                    if part == "train" and label // 50 != piece:
                        continue
                    strip = images[target == label].transpose(0, 2, 3, 1).reshape(-1, 32, 3)
                    buffer = io.BytesIO()
                    Image.fromarray(strip).save(buffer, "WEBP", lossless=True)
                    archive.writestr(f"{part}/{label:02}_name_{label}.webp", buffer.getvalue())
                    archive.writestr(f"{part}/{label:02}_name_{label}.txt", "official names\n")
    images_set = data.load({"source": f"cifar100:{tmp_path}", "val_fraction": 0.3})
    assert images_set.classes[19] == "name_19"
    for train, (count, seed) in zip((True, False), per_part.values(), strict=True):
        pixels, target = everything(images_set, train)
        want, labels = made(count, 100, seed)
        order = np.argsort(labels, kind="stable")  # strips are in class order
        assert np.array_equal(pixels, want[order])
        assert np.array_equal(target, labels[order])
    (tmp_path / "cifar100_train_1.zip").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="lack 50 of 100 classes"):
        data.load(f"cifar100:{tmp_path}")
    (tmp_path / "cifar100_test.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"lack 50|damaged"):
        data.load(f"cifar100:{tmp_path}")
    (tmp_path / "cifar100_test.zip").unlink()
    with pytest.raises(UserError, match="only one of"):
        data.load(f"cifar100:{tmp_path}")


def test_cifar_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for data_batch_1\.bin.*found nothing"):
        data.load(f"cifar10:{tmp_path}")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"cifar100_train_0\.zip; found notes\.txt"):
        data.load(f"cifar100:{tmp_path}")
    with pytest.raises(UserError, match="give the official"):
        data.load(f"cifar10:{tmp_path / 'notes.txt'}")
    files = binary_files(10)
    folder = tmp_path / "cut"
    write_folder(folder, {**files, "data_batch_3.bin": files["data_batch_3.bin"][:-1]})
    with pytest.raises(UserError, match=r"data_batch_3\.bin has 122919 bytes.*cut off"):
        data.load(f"cifar10:{folder}")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_3\.bin"):
        data.load(f"cifar10:{folder}")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(archive, {"data_batch_1.bin": files["data_batch_1.bin"]}, "x")
    with pytest.raises(UserError, match=r"lacks data_batch_2\.bin"):
        data.load(f"cifar10:{archive}")
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged or no archive"):
        data.load(f"cifar10:{archive}")
    wrong = {**files, "test_batch.bin": b"\xff" * 3073}
    write_folder(tmp_path / "labels", wrong)
    with pytest.raises(UserError, match="labels outside 0 to 9"):
        data.load(f"cifar10:{tmp_path / 'labels'}")


def test_cifar_without_class_names_is_numbered_with_a_note(tmp_path: Path) -> None:
    for kind, gone in (("binary", "batches.meta.txt"), ("python", "batches.meta")):
        files = KINDS[kind](10)
        del files[gone]
        write_folder(tmp_path / kind, files)
        images = data.load(f"cifar10:{tmp_path / kind}")
        assert images.classes == tuple("0123456789")
        assert any("numbered" in note for note in images.notes)


# --- pickles --------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def evil_functions() -> list[tuple[Any, tuple[Any, ...]]]:
    import os
    import shutil
    import subprocess

    return [
        (os.system, ("touch OWNED",)),
        (eval, ("open('OWNED', 'w')",)),
        (subprocess.Popen, (["touch", "OWNED"],)),
        (open, ("OWNED", "w")),
        (shutil.copy, (__file__, "OWNED")),
        (getattr, ("", "join")),
        (np.load, ("OWNED",)),
        (np.dtype, ("O",)),
        (bytearray, (3,)),
    ]


@pytest.mark.parametrize("number", range(len(evil_functions())))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    function, arguments = evil_functions()[number]
    files = python_files(100)
    files["train"] = pickle.dumps({b"data": Evil(function, *arguments), b"fine_labels": []}, protocol=protocol)
    write_folder(tmp_path / "c", files)
    with pytest.raises(restricted_pickle.RefusedError):
        data.load(f"cifar100:{tmp_path / 'c'}")
    assert not Path("OWNED").exists()


def test_a_malicious_meta_file_is_refused_too(tmp_path: Path) -> None:
    import os

    files = python_files(10)
    files["batches.meta"] = pickle.dumps(Evil(os.system, "true"))
    write_folder(tmp_path, files)
    with pytest.raises(restricted_pickle.RefusedError, match=r"(posix|nt|os)\.system"):
        data.load(f"cifar10:{tmp_path}")


def test_object_arrays_and_shared_dtypes(tmp_path: Path) -> None:
    objects = pickle.dumps({b"data": np.array([1, "x"], dtype=object)}, protocol=2)
    with pytest.raises(restricted_pickle.RefusedError, match="plain numbers"):
        restricted_pickle.load(io.BytesIO(objects), "here")
    swapped = pickle.dumps({b"data": np.arange(3, dtype=">i4")}, protocol=2)
    assert restricted_pickle.load(io.BytesIO(swapped), "here")["data"].tolist() == [0, 1, 2]
    assert np.dtype("i4") == np.dtype("=i4")
    assert np.array([1], "i4").tobytes() == struct.pack("=i", 1)


def test_a_pickle_may_not_change_what_it_is_given() -> None:
    # BUILD with a state for slots would set attributes on an object that find_class handed out.
    attack = b"\x80\x02cnumpy\ndtype\n(N}X\x08\x00\x00\x00__call__K\x01stb."
    with pytest.raises(UserError):
        restricted_pickle.load(io.BytesIO(attack), "here")
    test_object_arrays_and_shared_dtypes(Path())


def test_python2_pickles_are_read() -> None:
    # As Python 2 wrote them: byte strings by the SHORT_BINSTRING opcode, numpy by its old module names.
    old = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06\x01\x02\x03\x04\xfe\xfftbU\x06labels]q\x05(K\x07K\x08eu."
    )
    got = restricted_pickle.load(io.BytesIO(old), "here")
    assert got["data"].tolist() == [[1, 2, 3], [4, 254, 255]]
    assert got["labels"] == [7, 8]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02]q.", pickle.dumps([1, 2])])
def test_damaged_pickles(content: bytes) -> None:
    with pytest.raises(UserError, match=r"not a readable pickle|not the dict"):
        restricted_pickle.load(io.BytesIO(content), "here")


# --- the real ones --------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_real_fashion_mnist(data_root: Path) -> None:
    folder = data_root / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip("no fashion-mnist in CLASSROOMKD_DATA")
    images = data.load({"source": f"fashion-mnist:{folder}", "limit": 10_000, "resize": "pad"})
    assert (len(images.train), len(images.val), len(images.test)) == (9000, 1000, 10_000)
    pixels, target, ids = images.test.batch(torch.arange(3))
    assert target.tolist() == [9, 2, 1]
    assert ids.tolist() == [60_000, 60_001, 60_002]
    raw = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    assert np.array_equal(pixels[:, 1, 2:30, 2:30].numpy(), raw.reshape(-1, 28, 28)[:3])


@pytest.mark.data
def test_real_cifar100(data_root: Path) -> None:
    if not (data_root / "cifar100_test.zip").is_file():
        pytest.skip("no CIFAR-100 in CLASSROOMKD_DATA")
    images = data.load(f"cifar100:{data_root}")
    assert (len(images.train), len(images.val), len(images.test)) == (45_000, 5_000, 10_000)
    assert images.classes[19] == "cattle"
    pixels, target = everything(images, train=True)
    assert np.allclose(pixels.mean((0, 2, 3)) / 255, (0.507075, 0.486549, 0.440918), atol=1e-6)
    assert (np.bincount(target) == 500).all()
