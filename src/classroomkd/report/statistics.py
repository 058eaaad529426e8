"""Means over seeds and paired differences between arms, in numpy and the standard library.

Seeds are the unit: an arm is a mapping ``seed -> score``. Two arms that share seeds share data order and initial
weights, so their difference is taken seed by seed (paired), which removes what both have in common. Intervals are
two-sided 95 % Student-t intervals of the mean difference; with one seed there is none, and that is said, not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "Spread", "paired", "spread", "t_cdf", "t_quantile"]

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``n`` values (same unit as the values).

    ``sd`` is ``None`` below two values, ``mean`` is ``None`` for none at all.
    """

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of ``a - b`` over the ``n`` seeds both arms have, with its interval (same unit as the values).

    ``low`` and ``high`` are ``None`` below two shared seeds. ``unpaired`` are the seeds only one of them has.
    ``higher_is_better`` is of the values.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    unpaired: tuple[int, ...] = ()
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """What the interval says: ``gain``, ``loss``, ``unclear`` (0 is inside), ``one seed``, or ``none`` shared.

        An interval without width (every seed differs by the same amount) counts as ``unclear``: a handful of equal
        differences is what a coarse test set or a copied run looks like, not certainty.
        """
        if self.n == 0 or self.mean is None:
            return "none"
        if self.low is None or self.high is None:
            return "one seed"
        if self.low == self.high or self.low <= 0 <= self.high:
            return "unclear"
        return "gain" if (self.low > 0) == self.higher_is_better else "loss"


def spread(values: Iterable[float | None]) -> Spread:
    """Mean ± sample sd of the finite ``values``; ``None`` and non-finite ones are left out and not counted."""
    finite = _finite(values)
    if not finite:
        return Spread(0, None, None)
    if len(set(finite)) == 1:  # np.mean of equal numbers can differ from them in the last bit
        return Spread(len(finite), finite[0], 0.0 if len(finite) > 1 else None)
    return Spread(len(finite), float(np.mean(finite)), float(np.std(finite, ddof=1)))


def paired(
    a: Mapping[int, float | None],
    b: Mapping[int, float | None],
    level: float = LEVEL,
    *,
    higher_is_better: bool = True,
) -> Difference:
    """Paired difference ``a - b`` over the seeds in which both have a finite score.

    ``level`` is the coverage of the two-sided t interval of the mean, in (0, 1); ``higher_is_better`` says of which
    sign a gain is.
    """
    have_a = {seed for seed, value in a.items() if _finite([value])}
    have_b = {seed for seed, value in b.items() if _finite([value])}
    shared = sorted(have_a & have_b)
    unpaired = tuple(sorted(have_a ^ have_b))
    # Rounding far below any score's resolution, so that 0.62 - 0.60 and 0.72 - 0.70 count as equal.
    gaps = [round(float(a[seed] or 0.0) - float(b[seed] or 0.0), 12) for seed in shared]
    centre = spread(gaps)
    if centre.mean is None or centre.sd is None:
        return Difference(centre.n, centre.mean, None, None, unpaired, higher_is_better)
    half = t_quantile(0.5 + level / 2, centre.n - 1) * centre.sd / math.sqrt(centre.n)
    return Difference(centre.n, centre.mean, centre.mean - half, centre.mean + half, unpaired, higher_is_better)


def t_cdf(t: float, df: float) -> float:
    """Probability that Student's t with ``df`` > 0 degrees of freedom is at most ``t``."""
    assert df > 0, df
    tail = 0.5 * _beta_regularised(df / 2, 0.5, df / (df + t * t))
    return tail if t < 0 else 1.0 - tail


def t_quantile(p: float, df: float) -> float:
    """The ``t`` with ``t_cdf(t, df) == p``, for ``p`` in (0, 1); accurate to about 1e-10 relative.

    By bisection: the distribution function is monotone, so it cannot miss, and a report needs a few dozen of them.
    """
    assert 0.0 < p < 1.0, p
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -t_quantile(1.0 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return 0.5 * (low + high)


def _finite(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _beta_regularised(a: float, b: float, x: float) -> float:
    """I_x(a, b) for x in [0, 1], by Lentz's continued fraction on the side where it converges fast."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300

    def away(value: float) -> float:
        return value if abs(value) > tiny else tiny

    c, d = 1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1.0 / away(1.0 + even * d), away(1.0 + even / c)
        result *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 / away(1.0 + odd * d), away(1.0 + odd / c)
        result *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return result
