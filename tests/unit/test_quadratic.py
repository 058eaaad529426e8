"""The capped-simplex programme against every active set there is, and at its edges."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from classroomkd.errors import UserError
from classroomkd.functional import capped_simplex_qp, gram_weights
from classroomkd.functional.quadratic import _solve


def brute_force(gram: np.ndarray, cap: float | None) -> np.ndarray:
    """The best point among those that satisfy the KKT equations of some set of bounds held as equalities."""
    gram, m, bound = gram / np.trace(gram), len(gram), cap or 2.0
    best, answer = np.inf, np.full(m, np.nan)
    for held in product((0, 1) if cap is None else (0, 1, 2), repeat=m):
        free, a = np.array(held) == 1, np.where(np.array(held) == 2, bound, 0.0)
        n, left = free.sum(), 1 - a.sum()
        if left < -1e-12 or (n == 0 and left > 1e-12):
            continue
        if n:
            kkt = np.block([[gram[np.ix_(free, free)], -np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
            a[free] = np.linalg.lstsq(kkt, np.append(-gram[free] @ a, left), rcond=None)[0][:n]
        value = a @ gram @ a / 2
        if a.min() >= -1e-10 and a.max() <= bound + 1e-10 and value < best - 1e-16:
            best, answer = value, a
    return answer


def gap(gram: np.ndarray, cap: float | None, a: np.ndarray) -> float:
    """A bound on how much better than ``a`` any point is (the Frank-Wolfe gap), at trace 1."""
    slope, bound = gram / np.trace(gram) @ a, 1.0 if cap is None else cap
    greedy = np.clip(1 - bound * np.arange(len(a)), 0, bound)
    return float(slope @ a - np.sort(slope) @ greedy)


def assert_feasible(a: np.ndarray, cap: float | None) -> None:
    assert a.min() >= 0
    assert a.sum() == pytest.approx(1, abs=1e-12)
    assert cap is None or a.max() <= cap + 1e-12


@pytest.mark.parametrize("share", [None, 0.9, 0.6, 0.35, "tight"])
def test_against_brute_force(share: float | str | None) -> None:
    draw = np.random.default_rng(0)
    for trial in range(40):
        m = int(draw.integers(1, 6))
        cap = 1 / m if share == "tight" else None if share is None else max(float(share), 1 / m)
        rows = draw.normal(size=(m, m + 3)) * 10 ** draw.uniform(-6, 6)
        if trial % 3 == 0:
            rows += 2 * rows[:1]  # mentors that mostly agree: the optimum is on an edge
        if trial % 4 == 0:
            rows *= 10 ** draw.uniform(-1, 1, size=(m, 1))
        a = capped_simplex_qp(torch.tensor(rows @ rows.T), cap).numpy()
        assert_feasible(a, cap)
        np.testing.assert_allclose(a, brute_force(rows @ rows.T, cap), rtol=0, atol=1e-8)


def test_twelve_mentors() -> None:
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(12, 20)) + 0.5
    gram = rows @ rows.T
    np.testing.assert_allclose(
        capped_simplex_qp(torch.tensor(gram)).numpy(), brute_force(gram, None), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("cap", [None, 0.6, 0.35])
def test_where_the_gram_does_not_decide(cap: float | None) -> None:
    """Rank-deficient, nearly so, or very uneven: still feasible and optimal to rounding."""
    draw = np.random.default_rng(2)
    for trial in range(60):
        m = int(draw.integers(3, 13))
        rows = draw.normal(size=(m, int(draw.integers(1, m + 4))))
        rows[-1] = [rows[0], rows[0] * (1 + 1e-9), (rows[0] + rows[1]) / 2][trial % 3]
        if trial % 5 == 0:
            rows *= 10 ** draw.uniform(-3, 3, size=(m, 1))
        gram = rows @ rows.T
        a = capped_simplex_qp(torch.tensor(gram), cap).numpy()
        assert_feasible(a, cap)
        assert gap(gram, cap, a) < 1e-12


def test_an_optimum_that_only_just_lies_on_an_edge() -> None:
    a = capped_simplex_qp(torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    assert a.tolist() == pytest.approx([1, 0], abs=1e-8)


@pytest.mark.parametrize("m", range(1, 17))
@pytest.mark.parametrize("size", [0.0, 1e-12, 1.0, 1e12])
def test_identical_mentors_share_equally(m: int, size: float) -> None:
    gram = torch.full((m, m), size, dtype=torch.float64)
    for cap in (None, max(0.6, 1 / m), 1 / m):
        a = capped_simplex_qp(gram, cap)
        assert a.tolist() == pytest.approx([1 / m] * m, abs=1e-6)
        assert a.sum().item() == pytest.approx(1, abs=1e-9)


def test_a_group_of_identical_mentors_has_the_room_of_its_members() -> None:
    """Two directions at right angles, one of them thrice: each gets half, as far as the cap on a mentor allows."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    for cap, alone in ((None, 1 / 2), (0.4, 0.4), (0.3, 0.3), (0.25, 0.25), (0.251, 0.251)):
        wanted = [(1 - alone) / 3, alone, (1 - alone) / 3, (1 - alone) / 3]
        assert capped_simplex_qp(rows @ rows.T, cap).tolist() == pytest.approx(wanted, abs=1e-8)
    wanted = [0.25, 0.5, 0, 0.25]
    known = torch.tensor([True, True, False, True])
    assert capped_simplex_qp(rows @ rows.T, known=known).tolist() == pytest.approx(wanted, abs=1e-8)
    short = torch.cat([rows, torch.zeros(2, 2, dtype=torch.float64)])  # nothing to choose between two who do not pull
    assert capped_simplex_qp(short @ short.T).tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.5], abs=1e-8)
    assert capped_simplex_qp(short @ short.T, 0.3)[-2:].tolist() == pytest.approx([0.3, 0.3], abs=1e-8)


@pytest.mark.parametrize("m", range(2, 17))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_groups_among_others_on_every_kernel(m: int, dtype: torch.dtype) -> None:
    """Whatever the order of sums did to the copies: they share to 1e-6, and nobody's mix is shorter.

    A kernel's rounding is played by noise: on the Gram, of 32 roundings of |g| |h|, and on the gradients themselves.
    """
    draw = np.random.default_rng(m)
    for scale in (1e-6, 1.0, 1e6):
        kinds = int(draw.integers(1, m))
        of = draw.permutation(np.append(np.arange(kinds), draw.integers(0, kinds, m - kinds)))
        rows = scale * draw.normal(size=(kinds, 40))[of] + scale * (draw.random() < 0.5)
        gram = rows @ rows.T
        noise = draw.uniform(-1, 1, size=(m, m)) * np.sqrt(np.outer(gram.diagonal(), gram.diagonal()))
        gram = gram + 32 * np.finfo(np.float64).eps * (noise + noise.T) / 2
        given = torch.tensor(rows).to(dtype)
        given = given * (1 + 2 * torch.finfo(dtype).eps * torch.tensor(draw.uniform(-1, 1, size=rows.shape))).to(dtype)
        for cap in (None, max(0.35, 1 / m), 1.5 / m):
            of_gram, of_rows = capped_simplex_qp(torch.tensor(gram), cap).numpy(), gram_weights(given, cap).numpy()
            for a in (of_gram, of_rows):
                assert a.sum() == pytest.approx(1, abs=1e-9 if a.dtype == np.float64 else 1e-6)
                assert max(np.ptp(a[of == kind]) for kind in range(kinds)) < 1e-6
            assert_feasible(of_gram, cap)
            assert gap(gram, cap, of_gram) < 1e-12


def test_scale_does_not_matter() -> None:
    gram = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    expected = [6 / 11, 3 / 11, 2 / 11]
    for size in (1e-280, 1e-10, 1.0, 1e280):
        assert capped_simplex_qp(gram * size).tolist() == pytest.approx(expected, abs=1e-10)
    uneven = capped_simplex_qp(torch.diag(torch.tensor([1.0, 1e-12, 2e-12], dtype=torch.float64)))
    assert uneven.tolist() == pytest.approx([0, 2 / 3, 1 / 3], abs=1e-8)


def test_caps() -> None:
    gram = torch.diag(torch.tensor([1.0, 2.0, 1e6]))
    assert capped_simplex_qp(gram, 0.5).tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-5)
    assert capped_simplex_qp(gram, 1.0).tolist() == capped_simplex_qp(gram).tolist()
    for cap in (1 / 3, 0.01, 1 / 3 + 1e-13):  # one weighting only; none at all, read as one
        assert capped_simplex_qp(gram, cap).tolist() == pytest.approx([1 / 3] * 3, abs=1e-9)
    for cap in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="cap"):
            capped_simplex_qp(gram, cap)


def test_mentors_that_take_no_part() -> None:
    nan = float("nan")
    gram = torch.tensor([[1.0, nan, 0.0], [nan, nan, nan], [0.0, nan, 3.0]])
    known = torch.tensor([True, False, True])
    assert capped_simplex_qp(gram, known=known).tolist() == pytest.approx([0.75, 0, 0.25], abs=1e-12)
    assert capped_simplex_qp(gram, 0.6, known).tolist() == pytest.approx([0.6, 0, 0.4], abs=1e-12)
    assert capped_simplex_qp(gram, 0.4, known).tolist() == pytest.approx([0.5, 0, 0.5], abs=1e-12)
    assert capped_simplex_qp(gram, 0.6, torch.tensor([False, False, True])).tolist() == [0, 0, 1]
    assert capped_simplex_qp(gram, 0.6, torch.zeros(3, dtype=torch.bool)).tolist() == [0, 0, 0]
    assert capped_simplex_qp(gram).isnan().all()


def test_single_precision() -> None:
    """What a device without float64 gets: fewer digits, no surprises."""
    draw = np.random.default_rng(3)
    for _ in range(20):
        rows = draw.normal(size=(5, 8))
        a = _solve(torch.tensor(rows @ rows.T, dtype=torch.float32), 0.6, None).double().numpy()
        assert a.min() >= 0
        assert a.sum() == pytest.approx(1, abs=1e-6)
        assert gap(rows @ rows.T, 0.6, a) < 1e-5


def test_the_answer_is_a_constant_in_any_surroundings() -> None:
    gram = torch.eye(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        a = capped_simplex_qp(gram)
    assert a.dtype == torch.float64
    assert not a.requires_grad
