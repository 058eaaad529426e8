from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
import torch
from bank_pieces import (
    ask,
    contents,
    expected,
    filled,
    flip_bit,
    make_part,
    make_space,
    store_at,
)  # fmt: skip

from classroomkd.bank import Dense, Merged, RowStore, TopK, fill, gc, info, merge, stores, told_apart, verify
from classroomkd.errors import UserError

N, V = 200, 2
ROWS = "rows-00000.bin"


def right(folder: Path) -> bool:
    part, space = make_part(N), make_space(V)
    with store_at(folder, N, V, write=False) as store:
        for view in range(V):
            out = torch.zeros(N, 6, dtype=torch.float16)
            if not (store.slab(view, out).all() and torch.equal(out, expected(part, space, view))):
                return False
    return True


def test_info_says_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with store_at(folder, N, V) as store:
        fill({"logits": store}, ask, make_part(N), make_space(V), batch_size=16, shard=(0, 2))
    about = info(folder)
    assert (about.kind, about.views, about.samples, about.codec) == ("logits", V, N, "fp16 (6,)")
    assert (about.wanted, about.rows) == (N * V, (64 + 64) * V)
    assert about.nbytes == N * V * 16
    assert about.parts == ((0, N),)
    assert about.on_disk > 0
    assert about.key["mentor"] == "resnet20"
    (tmp_path / "not a store").mkdir()
    assert stores(tmp_path) == [folder]
    assert stores(tmp_path / "nowhere") == []
    with pytest.raises(UserError, match="no store"):
        info(tmp_path / "not a store")


def test_two_machines_fill_ranges_and_are_merged(tmp_path: Path) -> None:
    sources = [tmp_path / "one", tmp_path / "two"]
    for folder, (first, last) in zip(sources, [(0, 90), (90, N)], strict=True):
        filled(folder, N, V, first=first, last=last).close()
    assert merge(sources, tmp_path / "both") == Merged(N * V, 0)
    assert len(info(tmp_path / "both").parts) == 2
    assert right(tmp_path / "both")
    assert verify(tmp_path / "both").good == N * V
    assert merge(sources, tmp_path / "both") == Merged(0, 0)  # again: nothing to add
    with store_at(tmp_path / "both", N, V) as store:
        assert fill({"logits": store}, ask, make_part(N), make_space(V), batch_size=16) == 0


def test_shares_of_the_same_range_are_merged_row_by_row(tmp_path: Path) -> None:
    part, space = make_part(N), make_space(V)
    sources = [tmp_path / f"machine{k}" for k in range(3)]
    for k, folder in enumerate(sources):
        with store_at(folder, N, V) as store:
            fill({"logits": store}, ask, part, space, batch_size=16, shard=(k, 3))
    flip_bit(sources[1] / ROWS, 8 * 12 * 70)  # position 70 of view 0: damaged rows are not brought along
    assert merge(sources, tmp_path / "all") == Merged(N * V - 1, 1)
    with store_at(tmp_path / "all", N, V) as store:
        assert store.missing(0).tolist() == [70]
        assert fill({"logits": store}, ask, part, space, batch_size=16) == 1
    assert right(tmp_path / "all")
    filled(tmp_path / "plain", N, V).close()
    assert contents(tmp_path / "all") == contents(tmp_path / "plain")


def test_merging_into_a_store_with_a_part_of_it(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V, first=50, last=120).close()
    filled(tmp_path / "b", N, V).close()
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "a").added == (N - 70) * V
    assert right(tmp_path / "a")
    spans = info(tmp_path / "a").parts
    assert spans == ((0, 50), (50, 120), (120, N))


def test_a_merge_that_was_cut_short_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "a", N, V).close()
    (tmp_path / "b").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("classroomkd.bank.manifest.Manifest.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge([tmp_path / "a"], tmp_path / "b")
    assert (tmp_path / "b" / ROWS).exists()  # a file that no manifest names
    with store_at(tmp_path / "b", N, V) as store:
        assert store.count() == 0
    assert right(tmp_path / "a")
    assert merge([tmp_path / "a"], tmp_path / "b").added == N * V


def test_what_is_merged_is_checked_and_lives_apart_from_its_source(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V, last=100).close()
    flip_bit(tmp_path / "a" / ROWS, 8 * 12 * 70)
    before = contents(tmp_path / "a")
    assert merge([tmp_path / "a"], tmp_path / "b") == Merged(100 * V - 1, 1)
    found = verify(tmp_path / "b")
    assert (found.good, found.missing, found.damaged) == (100 * V - 1, 100 * V + 1, 0)
    flip_bit(tmp_path / "b" / ROWS, 0)
    assert verify(tmp_path / "b", repair=True).damaged == 1
    assert contents(tmp_path / "a") == before


def test_what_is_not_there_takes_no_room_when_merged(tmp_path: Path) -> None:
    samples, codec = 200_000, Dense((100,))
    with store_at(tmp_path / "a", samples, 2, codec=codec) as store:
        store.write(torch.ones(9, dtype=torch.int64), torch.arange(9), torch.randn(9, 100))
    assert merge([tmp_path / "a"], tmp_path / "b") == Merged(9, 0)
    about = info(tmp_path / "b")
    assert about.on_disk < about.nbytes // 4


def test_stores_that_belong_together_but_differ_are_named(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V, last=100).close()
    filled(tmp_path / "b", N, V, last=100, key={"mentor": "another"}).close()
    filled(tmp_path / "c", N, V, key={"weights": "8" * 64}).close()
    assert told_apart(tmp_path) == []
    filled(tmp_path / "d", N, V, first=100, key={"weights": "9" * 64}).close()
    (said,) = told_apart(tmp_path)
    assert "mentor 'resnet20' has 2 incomplete stores of logits" in said
    assert "beside a, d for other weights of mentor 'resnet20'" in said


def test_answers_of_another_mentor_are_not_merged(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V, last=100).close()
    filled(tmp_path / "b", N, V, first=100, key={"weights": "9" * 64}).close()
    with pytest.raises(UserError, match="other weights of mentor 'resnet20'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert merge([], tmp_path / "c") == Merged(0, 0)


def age(folder: Path, days: float) -> None:
    then = time.time() - days * 86400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def test_gc_removes_only_what_it_should(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    for name in ("old", "fresh", "kept", "used", "noted", "half"):
        filled(root / name, N, V).close()
        age(root / name, 40)
    age(root / "fresh", 2)
    RowStore.at(root / "used").close()  # opening is using
    (root / "noted" / "notes.txt").write_text("mine")
    age(root / "noted", 40)
    (root / "half" / "manifest.json").unlink()  # no store
    (root / "other").mkdir()
    (root / "other" / ROWS).write_bytes(b"x")
    (root / "file.txt").write_text("x")
    filled(tmp_path / "outside", N, V).close()
    age(tmp_path / "outside", 40)
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / ".removed-linked").symlink_to(tmp_path / "outside")
    everything = sorted(p.name for p in root.iterdir())
    planned = gc(root, keep={"kept"}, keep_days=30, dry_run=True)
    assert sorted(p.name for p in root.iterdir()) == everything
    done = gc(root, keep={"kept"}, keep_days=30)
    assert planned == done
    assert [p.name for p in done.folders] == ["old"]
    assert done.nbytes > N * V * 12
    assert sorted(p.name for p in done.left) == ["linked", "noted"]
    assert sorted(p.name for p in root.iterdir()) == [name for name in everything if name != "old"]
    assert verify(tmp_path / "outside").sound
    assert [p.name for p in gc(root, keep={"kept", "fresh"}).folders] == ["used"]
    with pytest.raises(UserError, match="say what may go"):
        gc(root)
    assert gc(tmp_path / "nowhere", keep_days=1).folders == ()


def test_looking_and_merging_is_no_use(tmp_path: Path) -> None:
    for name in ("a", "b"):
        filled(tmp_path / name, N, V).close()
        age(tmp_path / name, 40)
        info(tmp_path / name)
        verify(tmp_path / name)
    merge([tmp_path / "a"], tmp_path / "elsewhere" / "c")
    told_apart(tmp_path)
    assert [p.name for p in gc(tmp_path, keep_days=30, dry_run=True).folders] == ["a", "b"]


@pytest.mark.parametrize("days", [-1.0, math.nan, math.inf])
def test_gc_refuses_days_that_are_none(tmp_path: Path, days: float) -> None:
    filled(tmp_path / "a", N, V).close()
    with pytest.raises(UserError, match="give a finite number of days"):
        gc(tmp_path, keep_days=days)
    assert verify(tmp_path / "a").sound


@pytest.mark.parametrize("repair", [False, True])
def test_every_row_is_counted_once(tmp_path: Path, repair: bool) -> None:
    with filled(tmp_path / "a", N, V) as store:
        store.forget(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    flip_bit(tmp_path / "a" / ROWS, 8 * 12 * 70)
    found = verify(tmp_path / "a", repair=repair)
    assert (found.good, found.missing, found.damaged) == (N * V - 4, 3, 1)
    with (tmp_path / "a" / ROWS).open("r+b") as file:
        file.truncate(N * 12)  # the second view is cut off
    found = verify(tmp_path / "a", repair=repair)
    assert (found.good, found.missing, found.damaged) == (N - 4, 3 + repair, N + (not repair))


def test_info_says_what_all_samples_take(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V, last=100).close()
    assert info(tmp_path / "a").nbytes == N * V * (12 + 4)


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V).close()
    (tmp_path / "a").rename(tmp_path / ".removed-a-1")
    assert stores(tmp_path) == []
    gc(tmp_path, keep_days=1)
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_use_is_read_to_its_end(tmp_path: Path) -> None:
    filled(tmp_path / "a", N, V).close()
    with store_at(tmp_path / "a", N, V, write=False) as store:
        gc(tmp_path, keep=())
        out = torch.zeros(N, 6)
        assert store.slab(0, out).all()
        assert store.read(torch.zeros(N, dtype=torch.int64), torch.arange(N))[1].all()


def test_info_says_what_top_k_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "whole", N, V).close()
    assert info(tmp_path / "whole").left_out is None
    store_at(tmp_path / "top", N, V, codec=TopK(6, 2)).close()
    assert info(tmp_path / "top").left_out is None  # no row is there
    logits = 3 * torch.randn(V, N, 6, generator=torch.Generator().manual_seed(0)).half().float()
    mass = 1 - logits.double().softmax(2).topk(2, dim=2).values.sum(2)
    with store_at(tmp_path / "top", N, V, codec=TopK(6, 2)) as store:
        for view in range(V):
            store.write(torch.full((N,), view), torch.arange(N), logits[view])
        assert info(store.folder).left_out == pytest.approx(mass.mean().item(), rel=1e-4)
        monkeypatch.setattr("classroomkd.bank.maintenance._LOOKED_AT", N + 1)
        assert info(store.folder).left_out == pytest.approx(mass.flatten()[: N + 1].mean().item(), rel=1e-4)
        store.forget(torch.zeros(N, dtype=torch.int64), torch.arange(N))
        content = bytearray((store.folder / ROWS).read_bytes())
        content[N * 12 : N * 12 + 4] = b"\0\0\xc8\x42"  # a damaged row of view 1: 100 for the others
        (store.folder / ROWS).write_bytes(content)
        assert info(store.folder).left_out == pytest.approx(mass[1, 1:].mean().item(), rel=1e-4)
