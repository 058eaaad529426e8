"""``SHA256SUMS``: a file and its line are two writes, and a kill between them makes no good file look damaged."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from classroomkd._stored import read_json
from classroomkd._sums import SUMS, damage, forget, is_listed, unlisted, write_listed
from classroomkd.errors import UserError
from classroomkd.train import checkpoint


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(number: int, after: bool) -> Iterator[None]:
    """A kill before or after the so-manyth rename of a file."""
    real, calls = os.replace, 0

    def replace(old: Any, new: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            raise Killed
        real(old, new)
        if calls == number:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # who is killed tidies nothing up
        try:
            yield
        except Killed:
            return
    assert number > 4, "nothing was killed"


def test_sha256sum_agrees(tmp_path: Path) -> None:
    for name, text in (("a.json", "1"), ("b ü.json", "2"), ("a.json", "3")):
        write_listed(tmp_path / name, text)
    assert (tmp_path / "a.json").read_text() == "3"
    assert len((tmp_path / SUMS).read_text().splitlines()) == 2
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", SUMS], cwd=tmp_path, check=True)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_kill_between_a_file_and_its_line(tmp_path: Path, number: int, after: bool) -> None:
    path = tmp_path / "a.json"
    write_listed(path, "1")
    with killed_at(number, after):
        write_listed(path, "2")
        write_listed(path, "22")
    assert damage(path) is None
    assert path.read_text() in ("1", "2", "22")
    path.write_text("3")
    assert damage(path) == "is not what was written (its checksum differs)"
    write_listed(path, "4")
    assert damage(path) is None
    assert len((tmp_path / SUMS).read_text().splitlines()) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_kill_while_a_checkpoint_is_written(tmp_path: Path, number: int, after: bool) -> None:
    path, notes = tmp_path / "last.pt", list[dict[str, Any]]()
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch, "w": torch.ones(9) * epoch}, 2)
    with killed_at(number, after):
        checkpoint.save(path, {"epoch": 3, "w": torch.ones(9) * 3}, 2)
        checkpoint.save(path, {"epoch": 4, "w": torch.ones(9) * 4}, 2)
    state = checkpoint.load_last(path, notify=notes.append)
    assert state is not None
    assert state["epoch"] in (2, 3, 4)
    assert notes == []


def test_a_damaged_checkpoint_costs_the_way_from_the_one_before(tmp_path: Path) -> None:
    path, notes = tmp_path / "last.pt", list[dict[str, Any]]()
    for epoch in range(1, 5):
        checkpoint.save(path, {"epoch": epoch}, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [SUMS, "last-1.pt", "last-2.pt", "last.pt"]
    path.write_bytes(b"PK" + path.read_bytes()[2:-1])
    state = checkpoint.load_last(path, notify=notes.append)
    assert state == {"epoch": 3}
    (note,) = notes
    assert note["text"] == (
        f"{path} cannot be read as a checkpoint (it is not what was written (its checksum differs)); training goes on "
        "from the one before, last-1.pt"
    )
    assert not path.exists()
    assert not is_listed(path)
    checkpoint.save(path, {"epoch": 4}, 3)
    assert [checkpoint.load(tmp_path / name)["epoch"] for name in ("last.pt", "last-1.pt", "last-2.pt")] == [4, 3, 2]
    checkpoint.save(path, {"epoch": 5})  # the last of a training is enough
    assert sorted(p.name for p in tmp_path.iterdir()) == [SUMS, "last.pt"]
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt .*remove it to start this part again"):
        checkpoint.load_last(path)
    assert path.exists()
    assert not checkpoint.can_go_on(path)
    assert not path.exists()
    assert checkpoint.load_last(path) is None


def test_what_no_list_names(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert damage(path) is None
    assert str(unlisted(path)).startswith(f"{path} stands in no SHA256SUMS")
    write_listed(path, "[1]")
    assert unlisted(path) is None
    (tmp_path / SUMS).write_bytes(b"\xff nothing that is a line\n" + (tmp_path / SUMS).read_bytes())
    assert is_listed(path)
    form = TypeAdapter(list[int])
    assert read_json(path, form, remedy="-") == [1]
    path.write_text("[2]")
    with pytest.raises(UserError, match=r"a\.json is not what was written \(its checksum differs\); put it back"):
        read_json(path, form, remedy="put it back")
    forget(path)
    assert read_json(path, form, remedy="-") == [2]


def test_many_write_into_one_folder(tmp_path: Path) -> None:
    """Each finds its file listed: none writes over another's line. Who reads meanwhile sees no damage."""

    def work(number: int) -> None:
        for turn in range(10):
            write_listed(tmp_path / f"{number}.json", str(turn))
            write_listed(tmp_path / "shared.json", "7" * (number + 1))
            seen.append(damage(tmp_path / "shared.json"))

    seen: list[str | None] = []
    together(work, 4)
    assert set(seen) == {None}
    for name in ("shared", *"0123"):
        assert is_listed(tmp_path / f"{name}.json")
        assert damage(tmp_path / f"{name}.json") is None


def together(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
