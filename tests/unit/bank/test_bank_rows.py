from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from bank_pieces import CLASSES, all_places, expected, filled, make_part, make_space, present, store_at

from classroomkd.bank import Dense, RowStore, TopK

N, V = 50, 3


@pytest.fixture(params=[True, False], ids=["map", "pread"])
def mapped(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("cuts", [[(0, 50)], [(0, 20), (20, 50)], [(30, 50), (0, 7), (0, 50)]])
def test_what_is_written_is_read(tmp_path: Path, mapped: bool, cuts: list[tuple[int, int]]) -> None:
    """In one part or several, made in any order."""
    for first, last in cuts:
        store_at(tmp_path, N, V, first=first, last=last).close()
    answers = torch.randn(V, N, CLASSES)
    order = torch.randperm(V * N)
    views, positions = (x[order] for x in all_places(N, V))
    with store_at(tmp_path, N, V, mapped=mapped) as store:
        assert len(store.manifest.parts) == len(cuts)
        half = order.numel() // 2
        store.write(views[:half], positions[:half], answers[views[:half], positions[:half]])
        there = torch.arange(V * N) < half
        assert torch.equal(present(store, views, positions), there)
        values, ok = store.read(views, positions)
        assert torch.equal(ok, there)
        assert torch.equal(values[ok], answers[views, positions][ok].half())
        assert values[~ok].isnan().all()
        assert store.count() == half
        gone = [set(positions[half:][views[half:] == v].tolist()) for v in range(V)]
        assert [set(store.missing(v).tolist()) for v in range(V)] == gone
        assert set(store.missing(1, 10, 30).tolist()) == {p for p in gone[1] if 10 <= p < 30}
        store.write(views[half:], positions[half:], answers[views[half:], positions[half:]])
        assert store.read(views, positions)[1].all()
        assert store.damaged == 0
        assert store.nbytes == V * N * (2 * CLASSES + 4)  # four bytes a row besides the answer


def test_slab_is_the_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroomkd.bank.files.BLOCK", 7 * 2 * CLASSES)  # several blocks, the last one short
    with filled(tmp_path, N, V) as store:
        whole = expected(make_part(N), make_space(V), 1)
        out = torch.zeros(N, CLASSES, dtype=torch.float16)
        assert store.slab(1, out).all()
        assert torch.equal(out, whole)
        mixed = torch.zeros(N, 4, CLASSES)  # one mentor of four, float32
        store.read_ahead(1)
        assert store.slab(1, mixed[:, 2]).all()
        assert torch.equal(mixed[:, 2], whole.float())
        assert not mixed[:, [0, 1, 3]].any()
        into = torch.full((N,), -1)
        into[torch.tensor([40, 3, 17])] = torch.tensor([0, 1, 2])
        few = torch.zeros(3, CLASSES)
        ok = store.slab(1, few, into)
        assert ok.nonzero().flatten().tolist() == [3, 17, 40]
        assert torch.equal(few, whole[[40, 3, 17]].float())
        store.forget(torch.tensor([1]), torch.tensor([17]))
        assert not store.slab(1, out)[17]
        assert out[17].isnan().all()
        assert store.slab(1, few, into).sum() == 2
        assert few[2].isnan().all()


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])  # read into directly, or through a buffer
def test_slab_where_parts_leave_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: torch.dtype) -> None:
    monkeypatch.setattr("classroomkd.bank.files.BLOCK", 7 * 2 * CLASSES)
    with filled(tmp_path, N, V, first=10, last=30) as store:
        out = torch.zeros(N, CLASSES, dtype=kind)
        ok = store.slab(0, out)
        assert ok.nonzero().flatten().tolist() == list(range(10, 30))
        assert out[~ok].isnan().all()
        assert torch.equal(out[ok], expected(make_part(N), make_space(V), 0)[ok].to(kind))
        with pytest.raises(AssertionError, match="6"):
            store.slab(0, torch.zeros(N, 3, 2, dtype=kind))
        assert not present(store, torch.tensor([0]), torch.tensor([5])).any()
        assert not store.read(torch.tensor([0]), torch.tensor([5]))[1].any()
        assert store.missing(0).numel() == 0  # nobody asked for the others here
        with pytest.raises(AssertionError, match="no part"):
            store.write(torch.tensor([0]), torch.tensor([5]), torch.zeros(1, CLASSES))


def test_addresses_outside_are_an_error_not_another_row(tmp_path: Path, mapped: bool) -> None:
    with filled(tmp_path, N, V, mapped=mapped) as store:
        for view, position in ((0, N), (0, -1), (-1, 0), (V, 0)):
            with pytest.raises(AssertionError, match="outside"):
                store.read(torch.tensor([0, view]), torch.tensor([0, position]))
        values, ok = store.read(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        assert (values.shape, ok.shape) == ((0, CLASSES), (0,))


def test_one_row_twice_in_a_request(tmp_path: Path) -> None:
    with store_at(tmp_path, N, V) as store:
        views, positions = torch.tensor([1, 1, 0]), torch.tensor([9, 9, 9])
        store.write(views, positions, torch.tensor([[1.0], [2.0], [3.0]]).expand(3, CLASSES))
        values, ok = store.read(views, positions)
        assert ok.all()
        assert values[:, 0].tolist() == [2.0, 2.0, 3.0]


def test_a_view_of_two_parts_and_a_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroomkd.bank.files.BLOCK", 7 * 2 * CLASSES)
    filled(tmp_path, N, V, first=0, last=20).close()
    with filled(tmp_path, N, V, first=20, last=N) as store:
        assert len(store.table.parts) == 2
        whole = expected(make_part(N), make_space(V), 2)
        out = torch.zeros(N, CLASSES, dtype=torch.float16)
        assert store.slab(2, out).all()
        assert torch.equal(out, whole)
        part = store.table.parts[1]
        place = (2 * len(part.span) + 11) * part.row_bytes
        with part.paths[0].open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))
        ok = store.slab(2, out)
        assert (~ok).nonzero().flatten().tolist() == [31]
        assert out[31].isnan().all()
        assert torch.equal(out[ok], whole[ok])


@pytest.mark.parametrize("codec", [TopK(40, 5), TopK(40, 5, range(20)), Dense((3, 2, 2)), Dense((5,))])
def test_every_form_of_row(tmp_path: Path, codec: TopK | Dense) -> None:
    answers = torch.randn(N, *codec.shape)
    positions = torch.arange(N)
    with store_at(tmp_path, N, 1, codec=codec) as store:
        store.write(torch.zeros_like(positions), positions, answers)
        values, ok = store.read(torch.zeros_like(positions), positions)
        assert ok.all()
        assert values.dtype == codec.dtype
        assert torch.equal(values, codec.decode(codec.encode(answers)))
        out = torch.zeros(N, *codec.shape)
        assert store.slab(0, out).all()
        assert torch.equal(out, values.float())


def test_workers_open_it_anew(tmp_path: Path) -> None:
    with filled(tmp_path, N, V) as store:
        for again in (pickle.loads(pickle.dumps(store)), RowStore.at(tmp_path)):
            assert repr(again) == repr(store)
            views, positions = all_places(N, V)
            values, ok = again.read(views, positions)
            assert ok.all()
            assert torch.equal(values, store.read(views, positions)[0])
            again.close()


def test_nothing_is_read_into_gradients_or_from_them(tmp_path: Path) -> None:
    with store_at(tmp_path, N, V) as store:
        answers = torch.randn(1, CLASSES, requires_grad=True)
        store.write(torch.tensor([0]), torch.tensor([0]), answers * 2)
        assert not store.read(torch.tensor([0]), torch.tensor([0]))[0].requires_grad
