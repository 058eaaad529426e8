"""Channels matched: costs, assignments and transforms, against cases that can be worked out by hand."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.functional import matching as m
from classroomkd.methods import create

FINDERS = {"greedy": m.greedy, "bipartite": m.bipartite}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cost_of(own: Tensor, theirs: Tensor) -> Tensor:
    return m.spatial_cost(m.cosines(own, theirs), len(own))


def test_costs_are_their_formulas() -> None:
    own, theirs = drawn(3, 2, 5), drawn(3, 4, 5, seed=1)
    cost = cost_of(own, theirs)
    for i, j in itertools.product(range(2), range(4)):
        apart = [(own[b, i] / own[b, i].norm() - theirs[b, j] / theirs[b, j].norm()).square().sum() for b in range(3)]
        torch.testing.assert_close(cost[i, j], torch.stack(apart).mean())
    means, others = drawn(6, 2), drawn(6, 3, seed=1)
    known = torch.corrcoef(torch.cat([means, others], 1).T)[:2, 2:]
    torch.testing.assert_close(m.class_cost(means, others), 1 - known)
    constant = torch.ones(6, 1)
    assert m.class_cost(means, constant).tolist() == [[1.0], [1.0]]


def test_greedy_takes_the_cheapest_first_and_bipartite_the_least_sum() -> None:
    cost = torch.tensor([[1.0, 2.0], [2.0, 9.0]])
    assert m.greedy(cost).tolist() == [0, 1]
    assert m.bipartite(cost).tolist() == [1, 0]
    cost = drawn(5, 5)
    sums = [sum(cost[i, p[i]] for i in range(5)) for p in itertools.permutations(range(5))]
    found = m.bipartite(cost)
    torch.testing.assert_close(sum(cost[int(i), j] for j, i in enumerate(found)), min(sums))
    assert m.greedy(torch.zeros(3, 3)).tolist() == [0, 1, 2], "ties by index"


@pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS)
def test_other_widths(find: object) -> None:
    """Of 7 channels 3 take 2 each and one is left over; of 2 channels 3 leave one out."""
    assert callable(find)
    wide = find(drawn(3, 7))
    assert sorted(wide.tolist()) == [-1, 0, 0, 1, 1, 2, 2]
    transform = m.averaging(wide, 3)
    torch.testing.assert_close(transform.sum(1), torch.ones(3, dtype=torch.float64))
    assert set(transform.flatten().tolist()) == {0.0, 0.5}
    narrow = m.averaging(find(drawn(3, 2)), 3)
    assert sorted(narrow.sum(1).tolist()) == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS)
def test_a_copy_gives_the_identity_and_an_order_is_undone(find: object) -> None:
    assert callable(find)
    own, theirs = drawn(4, 6, 9), drawn(4, 6, 9, seed=1)
    assert torch.equal(m.averaging(find(cost_of(own, own)), 6), torch.eye(6, dtype=torch.float64))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain = m.averaging(find(cost_of(own, theirs)), 6) @ theirs
    mixed = m.averaging(find(cost_of(own, theirs[:, order])), 6) @ theirs[:, order]
    assert torch.equal(plain, mixed)


def test_the_controls() -> None:
    assert m.identity_assignment(3, 7).tolist() == [0, 1, 2, 0, 1, 2, -1]
    assert m.identity_assignment(3, 2).tolist() == [0, 1]
    one, other = m.random_assignment(8, 8, 0), m.random_assignment(8, 8, 1)
    assert sorted(one.tolist()) == list(range(8))
    assert one.tolist() != other.tolist()
    assert one.tolist() == m.random_assignment(8, 8, 0).tolist()


def test_learned_transforms_find_what_made_the_student() -> None:
    theirs = drawn(6, 200)
    rotation, _ = torch.linalg.qr(drawn(6, 6, seed=1))
    own = rotation @ theirs
    torch.testing.assert_close(m.procrustes(own @ theirs.T), rotation)
    free = drawn(4, 6, seed=2)
    found = m.ridge(free @ theirs @ theirs.T, theirs @ theirs.T, 1e-9)
    torch.testing.assert_close(found, free, rtol=1e-6, atol=1e-6)
    weak = m.ridge(free @ theirs @ theirs.T, theirs @ theirs.T, 1.0)
    assert weak.norm() < 0.8 * free.norm()
    narrow = m.procrustes(drawn(3, 200, seed=3) @ theirs.T)
    torch.testing.assert_close(narrow @ narrow.T, torch.eye(3, dtype=torch.float64))


def test_overlap_counts_common_channels() -> None:
    one = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    other = torch.tensor([[5.0, 1, 4, 2, 3], [1, 2, 3, 4, 5]])
    assert m.overlap(one, other, 2).item() == 0.75
    assert m.overlap(one, other, 10).item() == 1.0


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    for ask in (m.need_scipy, lambda: m.bipartite(torch.zeros(2, 2)), lambda: create("kcd")):
        with pytest.raises(UserError, match=r"classroomkd\[matching\].*match: greedy"):
            ask()
    create("kcd", match="greedy")
