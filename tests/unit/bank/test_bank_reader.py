"""What a training reads of a bank: which slabs are held, and what the system is told to read ahead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from bank_pieces import make_space
from torch import Tensor

from classroomkd.bank import LOGITS, Dense, EpochCache, FillOnMissCache, RowStore, files, reader
from classroomkd.data import FixedViews
from classroomkd.errors import RunStopped

N, V, M, C = 9, 4, 2, 6
CPU = torch.device("cpu")
SLAB = 2 * (N + 1) * M * C  # bytes


def stored(folder: Path, samples: int = N) -> tuple[list[dict[str, RowStore]], Tensor]:
    """Stores of M mentors and what they hold, (M, V, samples, C)."""
    said = torch.randn(M, V, samples, C, generator=torch.Generator().manual_seed(0)).half()
    stores = []
    for m in range(M):
        made = RowStore.open(
            folder / str(m), {"m": m}, kind=LOGITS, views=V, samples=samples, codec=Dense((C,)), write=True
        )
        for view in range(V):
            made.write(torch.full((samples,), view), torch.arange(samples), said[m, view])
        stores.append({LOGITS: made})
    return stores, said


def shown(seed: int, epochs: int) -> list[int]:
    space = make_space(V)
    assert isinstance(space, FixedViews)
    return [space.slot(seed, epoch) for epoch in range(epochs)]


def loads_at_best(order: list[int], room: int) -> int:
    """The fewest loads by which so many slabs can serve views in this order, by trying everything."""
    states = {frozenset[int](): 0}
    for view in order:
        after: dict[frozenset[int], int] = {}
        for held, cost in states.items():
            fits = [held] if view in held else [held | {view}]
            if len(fits[0]) > room:
                fits = [(held - {gone}) | {view} for gone in held]
            for state in fits:
                after[state] = min(after.get(state, len(order)), cost + (view not in held))
        states = after
    return min(states.values())


@pytest.mark.parametrize(("room", "kept"), [(0, 1), (SLAB, 1), (2 * SLAB + 1, 2), (3 * SLAB, 3), (99 * SLAB, V)])
def test_as_many_slabs_as_fit_are_kept_and_the_last_needed_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, kept: int
) -> None:
    stores, said = stored(tmp_path)
    ids = torch.arange(N) + 4
    loads: list[int] = []
    slab = RowStore.slab

    def counted(self: RowStore, view: int, out: Tensor) -> Tensor:
        loads.append(view)
        return slab(self, view, out)

    monkeypatch.setattr(RowStore, "slab", counted)
    for seed in range(3):
        bank, order = EpochCache(stores, ids, CPU, room=room), shown(seed, 6 * V)
        assert bank.slabs.shape[1] == kept
        loads.clear()
        for epoch, view in enumerate(order):
            bank.begin(view, *order[epoch + 1 : epoch + 2 * V])
            for other in range(V):
                told = bank.lookup(ids, torch.full((N,), other))
                if other == view or bank.held[other] >= 0:
                    assert torch.equal(told, said[:, other].float())
                else:
                    assert bool(told.isnan().all())
            assert sum(place >= 0 for place in bank.held) <= kept
        assert len(loads) == M * loads_at_best(order, kept)


@pytest.mark.parametrize("kind", [EpochCache, FillOnMissCache])
def test_the_next_view_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[EpochCache] | type[FillOnMissCache]
) -> None:
    samples = 25_000  # a view has more than one piece
    stores, _ = stored(tmp_path, samples)
    told: list[tuple[str, int, int]] = []

    def advise(fd: int, start: int, length: int, what: int) -> None:
        assert what == os.POSIX_FADV_WILLNEED
        told.append((os.readlink(f"/proc/self/fd/{fd}"), start, length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    bank = kind(stores, torch.arange(samples), CPU)
    bank.begin(1, 3, 0)
    wanted = [3] if kind is EpochCache else [1, 3]
    for m in range(M):
        for name, size in (("rows-00000.bin", 2 * C), ("sums-00000.bin", 4)):
            mine = sorted((start, length) for path, start, length in told if path == str(tmp_path / str(m) / name))
            assert all(0 < length <= files.AHEAD for _, length in mine)
            covered = [byte for start, length in mine for byte in (start, start + length)]
            assert covered[:: len(covered) - 1] == [wanted[0] * samples * size, (wanted[-1] + 1) * samples * size]
            assert sum(length for _, length in mine) == len(wanted) * samples * size
    told.clear()
    bank.begin(3)
    assert {start // (samples * 2 * C) for path, start, _ in told if "rows" in path} == (
        set() if kind is EpochCache else {3}
    )
    told.clear()
    monkeypatch.setattr(reader, "_memory", lambda: 4 * M * samples * (2 * C + 4) - 1)
    bank.begin(0, 1)
    assert not told, "two views would push each other out of memory"


def test_views_in_any_order_are_not_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores, _ = stored(tmp_path)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("nobody knows what comes"))
    FillOnMissCache(stores, torch.arange(N), CPU).begin(None)


@pytest.mark.parametrize("bad", [1, 3])
@pytest.mark.parametrize("write", [True, False])
def test_damage_is_told_with_a_remedy_that_works(tmp_path: Path, bad: int, write: bool) -> None:
    stores, _ = stored(tmp_path)
    folder = tmp_path / "1"
    content = bytearray((folder / "rows-00000.bin").read_bytes())
    for position in range(bad):
        content[(N + position) * 2 * C] ^= 1  # of view 1
    (folder / "rows-00000.bin").write_bytes(content)
    opened = [{LOGITS: RowStore.at(made[LOGITS].folder, write=write)} for made in stores]
    with pytest.raises(RunStopped) as error:
        EpochCache(opened, torch.arange(N), CPU).begin(1)
    said = str(error.value)
    answers = "1 stored answer in {} is" if bad == 1 else "3 stored answers in {} are"
    assert said.startswith(f"bank: {answers.format(folder)} missing or damaged")
    assert f"classroomkd bank verify {folder} --repair" in said
    assert ("--resume" in said) == write
    assert ("cannot be written here" in said) != write
    assert len(RowStore.at(folder).missing(1)) == (bad if write else 0)  # marked, so that filling asks it again
