from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_pieces import (
    ask,
    contents,
    exit_code,
    expected,
    filled,
    forked,
    make_part,
    make_space,
    slow_fill,
    store_at,
)  # fmt: skip
from torch import Tensor

from classroomkd.bank import Dense, fill, verify
from classroomkd.bank.locks import locked
from classroomkd.data.views import make_views
from classroomkd.errors import UserError

N, V = 150, 3


def test_all_is_asked_once(tmp_path: Path) -> None:
    part, space, told = make_part(N), make_space(V), []
    with store_at(tmp_path, N, V) as store:
        assert fill({"logits": store}, ask, part, space, batch_size=32, progress=told.append) == N * V
        for view in range(V):
            out = torch.zeros(N, 6, dtype=torch.float16)
            assert store.slab(view, out).all()
            assert torch.equal(out, expected(part, space, view))
        assert fill({"logits": store}, ask, part, space, batch_size=32) == 0
    done = [state["done"] for state in told]
    assert done == sorted(done)
    assert told[-1]["done"] == told[-1]["all"] == N * V
    assert told[-1]["left"] == 0
    assert told[0]["left"] > 0


def test_only_what_is_missing_is_asked_and_the_rest_keeps_its_bytes(tmp_path: Path) -> None:
    part, space = make_part(N), make_space(V)
    seen: list[Tensor] = []

    def other(pixels: Tensor) -> Mapping[str, Tensor]:
        seen.append(pixels)
        return {kind: value + 1 for kind, value in ask(pixels).items()}

    with (
        filled(tmp_path / "a", N, V) as store,
        store_at(tmp_path / "b", N, V, kind="@stage:-1", codec=Dense((3, 8, 8))) as maps,
    ):
        lost = torch.tensor([3, 77, 149])
        store.forget(torch.full_like(lost, 1), lost)
        assert fill({"logits": store}, other, part, space, batch_size=2) == 3
        assert [len(x) for x in seen] == [2, 1]
        values, ok = store.read(torch.full_like(part.ids, 1), torch.arange(N))
        assert ok.all()
        changed = (values != expected(part, space, 1)).any(1).nonzero().flatten()
        assert torch.equal(changed, lost)
        # The maps are all missing, the logits all there: one forward serves the one and leaves the other.
        before = contents(tmp_path / "a")
        assert fill({"logits": store, "@stage:-1": maps}, other, part, space, batch_size=64) == N * V
        assert contents(tmp_path / "a") == before
        assert maps.count() == N * V


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_shards_together_are_everything(tmp_path: Path, shards: int) -> None:
    part, space = make_part(N), make_space(V)
    with store_at(tmp_path / "shared", N, V) as store:
        shares = [fill({"logits": store}, ask, part, space, batch_size=7 + k, shard=(k, shards)) for k in range(shards)]
        assert sum(shares) == N * V
        assert store.count() == N * V
    filled(tmp_path / "one", N, V).close()
    assert contents(tmp_path / "shared") == contents(tmp_path / "one")


def test_a_space_without_bound_is_refused(tmp_path: Path) -> None:
    space = make_views("resized_crop", view_seed=0, image_size=(8, 8))
    with store_at(tmp_path, N, V) as store, pytest.raises(UserError, match="has no bound"):
        fill({"logits": store}, ask, make_part(N), space, batch_size=8)


def killed(folder: Path, moment: float, **more: Any) -> None:
    child = forked(lambda: slow_fill(folder, N, V, 0.002) and None)
    while not (folder / "manifest.json").exists():  # on a busy machine it takes its time to begin
        time.sleep(0.002)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL


def test_kill_nine_and_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """Twice here; twenty times, in programs of their own, in tests/slow/test_bank_kills.py."""
    filled(tmp_path / "whole", N, V).close()
    draw, counts = random.Random(3), []
    for _ in range(2):
        killed(tmp_path / "cut", draw.uniform(0.02, 0.1))
        if (tmp_path / "cut" / "manifest.json").exists():
            with store_at(tmp_path / "cut", N, V) as store:
                counts.append(store.count())
    assert counts == sorted(counts)
    assert counts[-1] < N * V, "it was done before it could be killed"
    assert verify(tmp_path / "cut").sound
    rest = slow_fill(tmp_path / "cut", N, V, 0)
    assert rest == N * V - counts[-1]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_two_processes_fill_one_store_at_once(tmp_path: Path) -> None:
    children = [forked(lambda: slow_fill(tmp_path / "both", N, V, 0.001) and None) for _ in range(3)]
    assert [exit_code(child) for child in children] == [0, 0, 0]
    filled(tmp_path / "one", N, V).close()
    assert contents(tmp_path / "both") == contents(tmp_path / "one")
    assert verify(tmp_path / "both").good == N * V


def test_who_makes_a_store_is_waited_for(tmp_path: Path) -> None:
    """Else the second would empty the files into which the first writes."""

    def hold() -> None:
        with locked(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(0.3)
            (tmp_path / "done").touch()

    child = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    store_at(tmp_path, N, V).close()
    assert (tmp_path / "done").exists()
    assert exit_code(child) == 0
