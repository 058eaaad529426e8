"""Writing is whole or not at all, and the operating system's refusals become sentences."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from classroomkd import _files
from classroomkd._files import (
    atomic_write,
    atomic_write_bytes,
    atomic_write_text,
    open_lock,
    refuse_links,
    refuse_links_below,
    writing,
)
from classroomkd.errors import RunStopped, UserError


def test_bytes_text_and_missing_folders(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "a" / "b" / "c.bin", b"\x00\r\n")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\r\n"
    atomic_write_text(tmp_path / "t.txt", "é\n\r\n")
    assert (tmp_path / "t.txt").read_bytes() == "é\n\r\n".encode()
    atomic_write_text(str(tmp_path / "t.txt"), "new")
    assert (tmp_path / "t.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "t.txt"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write(b"half of the n")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(_files.os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(_files.os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    atomic_write_bytes(tmp_path / "x", b"1")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    atomic_write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A link may come with a folder of somebody else's, and lead to any file of the user's."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UserError, match=r"link: it is a link to real, .* put what it leads to in its place"):
        atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "old"
    (tmp_path / "folder").mkdir()
    (tmp_path / "typed").symlink_to("folder")
    atomic_write_text(tmp_path / "typed" / "file", "new")  # a folder that the user names may be one
    assert (tmp_path / "folder" / "file").read_text() == "new"


def test_a_lock_is_not_emptied_nor_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    with open_lock(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept").read_text() == "old"
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(UserError, match=name):
            open_lock(tmp_path / name)
    with open_lock(tmp_path / "new"):
        pass
    assert (tmp_path / "new").read_bytes() == b""


def test_links_are_found_at_any_depth_but_the_first(tmp_path: Path) -> None:
    (tmp_path / "real" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root").symlink_to("real")
    refuse_links_below(tmp_path / "root")
    refuse_links_below(tmp_path / "absent")
    assert refuse_links(tmp_path / "root", "a", "new") == tmp_path / "root" / "a" / "new"
    (tmp_path / "real" / "a" / "b" / "c").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"a/b/c: it is a link"):
        refuse_links_below(tmp_path / "root")
    with pytest.raises(UserError, match=r"a/b/c: it is a link"):
        refuse_links(tmp_path / "root", "a", "b", "c", "d")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_the_run_and_keeps_the_old_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(
        RunStopped,
        match=rf"no space left .* writing {path}: it takes 3 B, .* are free.*\. Nothing already made is lost",
    ):
        atomic_write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_while_appending() -> None:
    with pytest.raises(RunStopped, match="no space left"), writing("/dev/full"), open("/dev/full", "w") as file:
        file.write("x")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(UserError, match=f"cannot write {path}: .*; choose another place"):
            atomic_write_bytes(path, b"1")
    assert not list((tmp_path / "folder").iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x"):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="odd"), writing("x"):
        raise OSError(errno.EIO, "odd")
