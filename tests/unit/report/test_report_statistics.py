from __future__ import annotations

import math

import numpy as np
import pytest

from classroomkd.report.statistics import paired, spread, t_cdf, t_quantile

# From printed tables of Student's t (two-sided 95 % and 99 %).
TABLE = {
    1: (12.7062, 63.6567),
    2: (4.3027, 9.9248),
    4: (2.7764, 4.6041),
    9: (2.2622, 3.2498),
    30: (2.0423, 2.7500),
    120: (1.9799, 2.6174),
}


@pytest.mark.parametrize("df", TABLE)
def test_t_quantile_is_the_printed_table(df: int) -> None:
    assert t_quantile(0.975, df) == pytest.approx(TABLE[df][0], abs=6e-5)
    assert t_quantile(0.995, df) == pytest.approx(TABLE[df][1], abs=6e-5)


def test_t_closed_forms_and_symmetry() -> None:
    for p in (0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)  # Cauchy
        assert t_quantile(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))), rel=1e-9)
        assert t_quantile(1 - p, 7) == pytest.approx(-t_quantile(p, 7), rel=1e-9)
        assert t_cdf(t_quantile(p, 13.5), 13.5) == pytest.approx(p, abs=1e-12)
    assert t_quantile(0.5, 3) == 0.0
    assert t_quantile(0.975, 1e7) == pytest.approx(1.959964, abs=1e-5)  # the normal limit


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    hits, trials = 0, 2000
    for _ in range(trials):
        shared = draw.normal(0, 5, 4)  # what both arms have in common must not widen the interval
        a = dict(enumerate(shared + draw.normal(1.0, 0.5, 4)))
        b = dict(enumerate(shared))
        found = paired(a, b)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1.0 <= found.high
    assert abs(hits / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_paired_by_hand() -> None:
    found = paired({0: 0.80, 1: 0.82, 2: 0.84}, {0: 0.75, 1: 0.78, 2: 0.76})
    assert found.n == 3
    assert found.mean == pytest.approx(0.17 / 3)
    half = 4.302652729749 * np.std([0.05, 0.04, 0.08], ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(0.17 / 3 - half), pytest.approx(0.17 / 3 + half))
    assert found.verdict == "gain"
    assert paired({0: 0.75, 1: 0.78, 2: 0.76}, {0: 0.80, 1: 0.82, 2: 0.84}).verdict == "loss"
    assert paired({0: 0.1, 1: 0.3}, {0: 0.2, 1: 0.2}).verdict == "unclear"


def test_one_seed_none_and_missing_seeds() -> None:
    one = paired({3: 0.8, 4: 0.9}, {3: 0.7, 5: 0.6})
    assert (one.n, one.mean, one.low, one.high) == (1, pytest.approx(0.1), None, None)
    assert one.verdict == "one seed"
    assert one.unpaired == (4, 5)
    none = paired({0: 0.5, 1: None, 2: math.nan}, {1: 0.4, 2: 0.4})
    assert (none.n, none.mean, none.low, none.verdict) == (0, None, None, "none")


def test_equal_differences_are_not_certainty() -> None:
    found = paired({0: 0.62, 1: 0.72, 2: 0.52}, {0: 0.60, 1: 0.70, 2: 0.50})
    assert found.mean == found.low == found.high == pytest.approx(0.02)
    assert found.verdict == "unclear"
    assert paired({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}).verdict == "unclear"


def test_spread() -> None:
    assert spread([]).mean is None
    assert (spread([0.7]).mean, spread([0.7]).sd) == (0.7, None)
    assert (spread([0.1] * 3).mean, spread([0.1] * 3).sd) == (0.1, 0.0)
    found = spread([0.1, None, 0.3, math.inf])
    assert (found.n, found.mean, found.sd) == (2, pytest.approx(0.2), pytest.approx(math.sqrt(0.02)))
