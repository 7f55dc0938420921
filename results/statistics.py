"""What per-sample scores amount to: means with intervals, worst cases, success rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

from registry.errors import InputContractError
from results.bootstrap import resampled_means
from results.record import Estimate
from results.sample_design import INDEPENDENT, SampleDesign

ALPHA = 0.05
"""One minus the coverage of intervals; level of the tests behind ranks."""
FAIL_BELOW = 0.5
"""A sample is broken when its score is under this, in every task."""
FEW_GROUPS = 10
"""Groups with a sample of the rarer kind: fewer do not show how much the samples of a group resemble each other."""


def as_scores(scores: ArrayLike) -> np.ndarray:
    """Returns scores as float64, (N,).

    Raises:
        InputContractError: They are not one row of finite numbers.
    """
    vector = np.asarray(scores, dtype=np.float64)
    if vector.ndim != 1:
        raise InputContractError(f"expected one score per sample, (N,), got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise InputContractError(
            f"expected finite scores, got {int((~np.isfinite(vector)).sum())} that are not; "
            "count failed samples as errors instead"
        )
    return vector


def is_binary(scores: ArrayLike) -> bool:
    """Returns whether every score is 0 or 1."""
    values = np.asarray(scores)
    return bool(((values == 0) | (values == 1)).all())


def mean_estimate(scores: ArrayLike, binary: bool, design: SampleDesign = INDEPENDENT) -> Estimate:
    """Returns the mean with its 95 % interval over images.

    Wilson's interval for 0/1 scores; otherwise the percentile bootstrap over images, 2000 resamples of a fixed seed.
    Where images belong together the bootstrap draws whole groups, and 0/1 scores have both: the bootstrap, and Wilson's
    interval for as many images as would say as much if they were independent.

    Args:
        scores: One number per sample, (N,); N = 0 gives 0 with the interval [0, 1].
        binary: Whether all scores are 0 or 1.
        design: Which samples belong together, and how much each counts; 0/1 scores of unequal weight are graded.

    Raises:
        InputContractError: A score is not finite, or `binary` scores hold something between 0 and 1.
    """
    vector = as_scores(scores)
    if binary and not is_binary(vector):
        raise InputContractError("expected scores of 0 and 1, got others; pass binary=False for graded scores")
    codes, binary = design.drawable(len(vector)).codes(len(vector)), binary and design.weights is None
    if not len(vector) or (binary and codes is None):
        return proportion(int(vector.sum()), len(vector))
    value = float(np.average(vector, weights=design.weights))
    means = resampled_means(vector[None], design=design)[:, 0]
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    found = Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=len(vector))
    return united(found, _share_of_groups(vector, codes, float(means.var()))) if binary else found


def _share_of_groups(vector: np.ndarray, codes: np.ndarray, variance: float) -> Estimate:
    """Returns Wilson's interval of a share for the number of independent images that say as much.

    That number is n over the design effect, the bootstrap's variance over the binomial one. Where fewer than
    `FEW_GROUPS` hold a sample of the rarer kind, a variance says little: the number is that of the groups.

    Args:
        vector: Scores of 0 and 1, (N,).
        codes: The group of each, 0 to G - 1.
        variance: Of the mean, from a bootstrap that draws groups.
    Source: Kish 1965, "Survey Sampling"; Korn and Graubard 1998, "Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data".
    """
    n, groups, share = len(vector), int(codes.max()) + 1, float(vector.mean())
    rarer = vector if share <= 0.5 else 1 - vector
    mixed = len(np.unique(codes[rarer > 0]))
    effect = variance * n / (share * (1 - share)) if 0 < share < 1 else np.inf
    effective = groups if mixed < FEW_GROUPS else min(float(n), max(float(groups), n / effect))
    low, high = proportion_confint(share * effective, effective, alpha=ALPHA, method="wilson")
    return Estimate(value=share, low=min(float(low), share), high=max(float(high), share), n=n)


def united(one: Estimate, other: Estimate) -> Estimate:
    """Returns the first estimate with an interval that holds both."""
    return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))


@lru_cache(maxsize=100_000)
def proportion(k: int, n: int) -> Estimate:
    """Returns k of n with Wilson's 95 % interval; 0 with the interval [0, 1] where n is 0.

    Raises:
        InputContractError: k is not between 0 and n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= k <= n:
        raise InputContractError(f"expected a count between 0 and {n}, got {k}")
    if n == 0:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0)
    low, high = proportion_confint(k, n, alpha=ALPHA, method="wilson")
    return Estimate(value=k / n, low=min(float(low), k / n), high=max(float(high), k / n), n=n)


def worst_case(scores: Sequence[ArrayLike]) -> np.ndarray:
    """Returns the lowest score of each sample over attacks of one threat model and budget, (N,).

    Args:
        scores: One vector per attack, the clean scores among them; all (N,), samples in the same order.

    Raises:
        InputContractError: There is no vector, or their lengths differ.
    """
    vectors = [as_scores(vector) for vector in scores]
    if len({len(vector) for vector in vectors}) != 1:
        raise InputContractError(
            f"expected vectors over the same samples, got lengths {[len(vector) for vector in vectors]}"
        )
    return np.minimum.reduce(vectors)


def attack_success_rate(
    clean: ArrayLike, adversarial: ArrayLike, fail_below: float, design: SampleDesign = INDEPENDENT
) -> Estimate:
    """Returns the share of eligible samples that an attack brings below `fail_below`.

    Args:
        clean: Scores on unchanged inputs, (N,); samples under `fail_below` were broken before and are not eligible.
        adversarial: Scores under attack, (N,).
        fail_below: A sample is broken when its score is under this.
        design: Which samples belong together; all count alike.

    Raises:
        InputContractError: The vectors' lengths differ, or a score is not finite.
    """
    lowest = worst_case([clean, adversarial])
    eligible = as_scores(clean) >= fail_below
    broken = lowest[eligible] < fail_below
    return mean_estimate(broken, True, design.equally().take(eligible))
