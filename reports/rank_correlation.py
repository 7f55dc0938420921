"""Whether two scores put the same rows in the same order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh
from statistics import NormalDist

from scipy.stats import kendalltau, spearmanr

from results.statistics import ALPHA

DIGITS = 8
"""Decimals of a score that tell two rows apart: sums of rounded scores differ in the last ones of a float."""
FEWEST_ROWS = 3
"""Rows from which an order can be compared with another."""
ENOUGH_ROWS = 10
"""Rows from which a rank correlation has an interval; of fewer it says little."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Whether two scores put the same rows in the same order; 1 the same, -1 the opposite."""

    spearman: float
    """Spearman's rho."""
    interval: tuple[float, float] | None
    """95 % interval of Spearman's rho were rows drawn at random; None where they are fewer than 10 or rho is +-1."""
    kendall: float
    """Kendall's tau-b."""
    n: int
    """Number of rows."""

    @property
    def direction(self) -> int | None:
        """1 where the orders are shown to agree, -1 to oppose each other, 0 neither; None of fewer than 10 rows."""
        if self.n < ENOUGH_ROWS:
            return None
        low, high = self.interval or (self.spearman, self.spearman)
        return 1 if low > 0 else -1 if high < 0 else 0


def correlate(pairs: Iterable[tuple[float, float]]) -> Correlation | None:
    """Returns how two scores of the same rows agree; None where rows are too few or one score is the same in all.

    Args:
        pairs: Both scores of each row.
    """
    rounded = [(round(one, DIGITS), round(other, DIGITS)) for one, other in pairs]
    if len(rounded) < FEWEST_ROWS or any(len(set(values)) == 1 for values in zip(*rounded, strict=True)):
        return None
    first, second = zip(*rounded, strict=True)
    rho, tau = float(spearmanr(first, second).statistic), float(kendalltau(first, second).statistic)
    if not isfinite(rho + tau):
        return None
    return Correlation(spearman=rho, interval=spearman_interval(rho, len(rounded)), kendall=tau, n=len(rounded))


def spearman_interval(rho: float, n: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a rank correlation of n pairs by Fisher's z, or None where it would say nothing.

    Its standard error is that of Bonett and Wright (2000), sqrt((1 + rho^2 / 2) / (n - 3)).
    """
    if n < ENOUGH_ROWS or abs(rho) > 1 - 1e-9:
        return None
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * sqrt((1 + rho**2 / 2) / (n - 3))
    return tanh(atanh(rho) - half), tanh(atanh(rho) + half)
