"""Balanced accuracy, the mean of the class recalls, with an interval that does not collapse at 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from registry.errors import InputContractError
from results.bootstrap import RESAMPLES, resampled_means
from results.record import Estimate
from results.sample_design import INDEPENDENT, SampleDesign
from results.statistics import ALPHA, as_scores


def mean_of_shares(shares: Sequence[Estimate]) -> Estimate:
    """Returns the mean of independent shares; their 95 % intervals are combined by MOVER, n is the sum.

    Args:
        shares: At least one, each with its interval.

    Raises:
        InputContractError: There is none.

    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach".
    """
    if not shares:
        raise InputContractError("expected at least one share, got none")
    k = len(shares)
    value = sum(share.value for share in shares) / k
    below = sum((share.value - share.low) ** 2 for share in shares) ** 0.5 / k
    above = sum((share.high - share.value) ** 2 for share in shares) ** 0.5 / k
    return Estimate(value=value, low=value - below, high=value + above, n=sum(share.n for share in shares))


def balanced_mean(scores: np.ndarray, members: np.ndarray, design: SampleDesign = INDEPENDENT) -> Estimate:
    """Returns the mean over classes of the mean graded score in each, with a percentile bootstrap over all images.

    A class that a resample misses does not count in it.

    Args:
        scores: One score per sample, (N,).
        members: bool (K, N): the samples of each class, at least one in each.
        design: Which samples belong together.

    Raises:
        InputContractError: A class has no sample, or a score is not finite.
    """
    vector, inside = as_scores(scores), np.asarray(members, dtype=bool)
    if not inside.size or not inside.any(axis=1).all():
        raise InputContractError("expected samples in each class")
    means = resampled_means(np.concatenate([inside * vector, inside]).astype(np.float64), RESAMPLES, design)
    sums, sizes = np.split(means, 2, axis=1)
    resampled = np.nanmean(np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0), axis=1)
    low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
    value = float(np.mean([vector[rows].mean() for rows in inside]))
    return Estimate(value=value, low=float(min(low, value)), high=float(max(high, value)), n=int(inside.any(0).sum()))
