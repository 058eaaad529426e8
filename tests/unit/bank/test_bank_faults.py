"""What disks, kills and neighbours do to a store: detected, asked again, or refused; never used."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bank_pieces import (
    CLASSES,
    all_places,
    ask,
    contents,
    exit_code,
    expected,
    filled,
    flip_bit,
    forked,
    make_part,
    make_space,
    present,
    store_at,
)  # fmt: skip

from classroomkd.bank import RowStore, fill, verify
from classroomkd.bank.locks import may_write
from classroomkd.errors import RunStopped, UserError

N, V = 50, 3
ROWS, SUMS = "rows-00000.bin", "sums-00000.bin"


def good_only(store: RowStore) -> torch.Tensor:
    """Every row that the store gives out is right; returns which there are, (V, N)."""
    views, positions = all_places(N, V)
    values, ok = store.read(views, positions)
    true = torch.stack([expected(make_part(N), make_space(V), view) for view in range(V)])
    assert torch.equal(values.view(V, N, CLASSES)[ok.view(V, N)], true[ok.view(V, N)])
    assert values[~ok].isnan().all()
    for view in range(V):
        out = torch.zeros(N, CLASSES, dtype=torch.float16)
        there = store.slab(view, out)
        assert torch.equal(there, ok.view(V, N)[view])
        assert torch.equal(out[there], true[view][there])
    return ok.view(V, N)


def refilled(folder: Path) -> bool:
    """After a repair and a fill the bytes are those of a store that was never hurt."""
    with store_at(folder, N, V) as store:
        fill({"logits": store}, ask, make_part(N), make_space(V), batch_size=16)
    filled(folder.parent / "untouched", N, V).close()
    return contents(folder) == contents(folder.parent / "untouched")


@pytest.mark.parametrize("name", [ROWS, SUMS])
@pytest.mark.parametrize("write", [False, True])
def test_a_flipped_bit(tmp_path: Path, name: str, write: bool) -> None:
    folder = tmp_path / "bank"
    filled(folder, N, V).close()
    bits = (folder / name).stat().st_size * 8
    each = bits // (N * V)
    draw = random.Random(0)
    hurt = sorted(draw.sample(range(N * V), 20))
    for row in hurt:
        flip_bit(folder / name, row * each + draw.randrange(each))
    found = verify(folder)
    assert (found.good, found.missing, found.damaged, found.sound) == (N * V - 20, 0, 20, False)
    with store_at(folder, N, V, write=write) as store:
        views, positions = all_places(N, V)
        ok = store.read(views, positions)[1]
        assert (~ok).nonzero().flatten().tolist() == hurt
        assert store.damaged == 20
        good_only(store)
        assert present(store, views, positions).all() != write  # a writer has them asked again
    assert verify(folder, repair=True).damaged == (0 if write else 20)
    assert verify(folder).sound
    assert refilled(folder)


def test_a_row_or_a_file_that_belongs_elsewhere(tmp_path: Path) -> None:
    folder, other = tmp_path / "bank", tmp_path / "other"
    filled(folder, N, V).close()
    size = 2 * CLASSES
    rows, words = bytearray((folder / ROWS).read_bytes()), bytearray((folder / SUMS).read_bytes())
    rows[3 * size : 4 * size], words[12:16] = rows[9 * size : 10 * size], words[36:40]  # copied with its word
    (folder / ROWS).write_bytes(rows)
    (folder / SUMS).write_bytes(words)
    with store_at(folder, N, V, write=False) as store:
        assert (~good_only(store)).nonzero().tolist() == [[0, 3]]
    filled(other, N, V, key={"weights": "f" * 64}).close()
    for name in (ROWS, SUMS):
        shutil.copyfile(other / name, folder / name)  # whole files of another mentor under this manifest
    assert verify(folder).good == 0


@pytest.mark.parametrize("cut", [0.0, 0.01, 0.4, 0.999])
@pytest.mark.parametrize("name", [ROWS, SUMS])
def test_a_file_cut_short(tmp_path: Path, name: str, cut: float) -> None:
    folder = tmp_path / "bank"
    filled(folder, N, V).close()
    path = folder / name
    size = path.stat().st_size
    os.truncate(path, int(cut * size))
    with pytest.raises(UserError, match=f"{name} has .* bytes where {size} belong"):
        store_at(folder, N, V, write=False)
    found = verify(folder)
    assert name in found.problems[0]
    whole = int(cut * size) * N * V // size
    assert found.good == whole
    with store_at(folder, N, V) as store:
        assert store.mended == N * V - whole or name == SUMS
        ok = good_only(store)
        assert ok.view(-1).nonzero().flatten().tolist() == list(range(whole))
        assert sum(len(store.missing(view)) for view in range(V)) == N * V - whole
        assert store.damaged == 0
    assert refilled(folder)


def test_files_that_are_gone_or_too_long(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    for name in (ROWS, SUMS):
        filled(folder, N, V).close()
        (folder / name).unlink()
        with pytest.raises(UserError, match="cannot open"):
            store_at(folder, N, V, write=False)
        assert not verify(folder).sound
        assert verify(folder, repair=True).good == 0
        assert refilled(folder)
        with (folder / name).open("ab") as file:
            file.write(b"x" * 100)
        with pytest.raises(UserError, match="belong"):
            store_at(folder, N, V, write=False)
        assert refilled(folder)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("name", [ROWS, SUMS])
def test_a_file_cut_short_while_it_is_open(tmp_path: Path, name: str, mapped: bool) -> None:
    """No signal kills the reader, and no row comes out that is not there."""
    folder = tmp_path / "bank"
    filled(folder, 1200, 1).close()  # many pages: reading behind the end of a map would be the end
    index = torch.arange(1200)
    for write in (False, True):
        with store_at(folder, 1200, 1, write=write, mapped=mapped) as store:
            assert store.read(torch.zeros_like(index), index)[1].all()
            os.truncate(folder / name, 50)
            if write:
                ok = store.read(torch.zeros_like(index), index)[1]
                assert ok.sum() < 50
            else:
                with pytest.raises(UserError, match="cut short while in use"):
                    store.read(torch.zeros_like(index), index)
                filled(folder, 1200, 1).close()


def test_a_write_that_stopped_half_way(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    filled(folder, N, V).close()
    rows, words = (folder / ROWS).read_bytes(), (folder / SUMS).read_bytes()
    size = 2 * CLASSES
    # Row 5: all of the row, no word. Row 6: the word, half of the row. Row 7: the word, nothing of the row.
    torn = bytearray(rows)
    torn[6 * size + size // 2 : 7 * size] = bytes(size - size // 2)
    torn[7 * size : 8 * size] = bytes(size)
    (folder / ROWS).write_bytes(torn)
    (folder / SUMS).write_bytes(words[:20] + bytes(4) + words[24:])
    with store_at(folder, N, V, write=False) as store:
        assert (~good_only(store)).nonzero().tolist() == [[0, 5], [0, 6], [0, 7]]
    assert verify(folder, repair=True).damaged == 2
    assert refilled(folder)


def test_rows_go_before_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, content: bytes, offset: int) -> int:
        order.append(fd)
        return real(fd, content[: max(len(content) // 2, 1)], offset)  # and short writes are gone on with

    with store_at(tmp_path, N, V) as store:
        monkeypatch.setattr(os, "pwrite", pwrite)
        store.write(torch.zeros(9, dtype=torch.int64), torch.arange(0, 18, 2), torch.randn(9, CLASSES))
        rows, words = store.table.parts[0].fds
        assert order == sorted(order, key=[rows, words].index)
        assert store.read(torch.zeros(9, dtype=torch.int64), torch.arange(0, 18, 2))[1].all()


def test_two_writers_of_different_bytes_leave_whole_rows(tmp_path: Path) -> None:
    """Should two machines not agree to the bit, a row is one's or the other's, or is asked again."""
    positions = torch.arange(N)
    store_at(tmp_path, N, 1).close()

    def write(value: float) -> None:
        with store_at(tmp_path, N, 1) as store:
            for _ in range(150):
                store.write(torch.zeros_like(positions), positions, torch.full((N, CLASSES), value))

    children = [forked(lambda value=value: write(value)) for value in (1.0, 2.0)]  # type: ignore[misc]
    with store_at(tmp_path, N, 1, write=False) as store:
        for _ in range(200):
            values, ok = store.read(torch.zeros_like(positions), positions)
            kept = values[ok]
            assert (kept == kept[:, :1]).all()
            assert ((kept == 1) | (kept == 2)).all()
    assert [exit_code(child) for child in children] == [0, 0]


def test_a_read_only_folder_opened_by_many(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    filled(folder, N, V).close()
    before = contents(folder)
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)

    def read() -> None:
        os.chdir(folder)
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)  # root may write anywhere
        for _ in range(20):
            with store_at(Path(), N, V, write=False) as store:
                assert good_only(store).all()
        with pytest.raises(UserError, match="cannot open"):
            store_at(Path(), N, V, write=True)
        assert verify(Path()).sound

    try:
        children = [forked(read) for _ in range(4)]
        assert [exit_code(child) for child in children] == [0] * 4
        assert contents(folder) == before
    finally:
        folder.chmod(0o755)


def test_each_store_is_written_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bank that several people share, folders and files may belong to others."""
    whole = tmp_path / "whole"
    filled(whole, N, V).close()
    assert may_write(whole)
    assert may_write(tmp_path / "new")
    allowed, closed = os.access, whole
    if os.getuid() == 0:  # root may write everything
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and allowed(path, mode))
    for closed in (whole, whole / ".lock", whole / ROWS, whole / SUMS):
        before = closed.stat().st_mode
        closed.chmod(0o555)
        assert not may_write(whole)
        closed.chmod(before)
    closed = tmp_path
    tmp_path.chmod(0o555)
    assert may_write(whole)
    assert not may_write(tmp_path / "new")
    tmp_path.chmod(0o755)


# Full disks


def test_too_little_space_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match=r"these answers take 2\.34 KiB, .* has 1\.95 KiB free"):
        store_at(tmp_path / "bank", N, V)
    assert not list((tmp_path / "bank").glob("*.bin"))
    assert not (tmp_path / "bank" / "manifest.json").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_cannot_be_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("classroomkd.bank.files.RESERVE", 1200)
    with store_at(tmp_path / "bank", N, V) as store:
        index = torch.arange(N)
        answers = expected(make_part(N), make_space(V), 0).float()
        store.write(torch.zeros_like(index), index, answers)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            store.write(torch.zeros_like(index), index, answers)  # its space is there already
            with pytest.raises(RunStopped, match="no space left"):
                store.write(torch.full_like(index, 2), index, answers)
        assert good_only(store).sum(1).tolist() == [N, 0, 0]
    assert refilled(tmp_path / "bank")


def test_a_file_system_that_cannot_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    with filled(tmp_path, N, V) as store:
        assert good_only(store).all()


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """A quota of another kind: found when the files get their size."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(RunStopped, match="no space left"):
            store_at(tmp_path / "bank", 5000, V)

    assert exit_code(forked(limited)) == 0
    filled(tmp_path / "bank", 5000, 1, key={"mentor": "x"}).close()  # what was left does not get in the way


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroomkd.bank.files.RESERVE", 4096)
    samples, views = 2000, 6  # 192 KB
    part, space = make_part(samples), make_space(views)
    with pytest.raises(
        UserError, match=r"take 312\.50 KiB, .* has 252\.00 KiB free"
    ):  # a lock that says who holds it takes a page
        store_at(small_disk / "large", samples, 10)
    shutil.rmtree(small_disk / "large")
    with store_at(small_disk / "bank", samples, views) as store:
        first = fill({"logits": store}, ask, make_part(samples), make_space(views), batch_size=500, shard=(0, 4))
        (small_disk / "else").write_bytes(b"x" * 1000)
        with (small_disk / "else").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(RunStopped, match="no space left"):
            fill({"logits": store}, ask, part, space, batch_size=500)
        there = store.count()
        assert first <= there < samples * views
    found = verify(small_disk / "bank")
    assert (found.good, found.damaged) == (there, 0)
    (small_disk / "else").unlink()
    with store_at(small_disk / "bank", samples, views) as store:
        assert fill({"logits": store}, ask, part, space, batch_size=500) == samples * views - there
    assert verify(small_disk / "bank").good == samples * views
