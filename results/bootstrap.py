"""The bootstrap over images or groups of them: all vectors of a call share its draws, and every call repeats them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from results.sample_design import INDEPENDENT, SampleDesign

SEED = 20270
RESAMPLES = 2000
"""Resamples behind an interval."""
_CELLS = 250_000
"""Resampled images held at a time: few enough for the processor's cache."""


def drawn_images(n: int, resamples: int, design: SampleDesign = INDEPENDENT) -> Iterator[np.ndarray]:
    """Yields the rows of resampled images, for what is no mean; as many images as there are, or as many groups.

    Args:
        n: Number of images.
        resamples: How often they are drawn with replacement; the draws are the same in every call.
        design: Images of one group are drawn together.
    """
    rng, codes = np.random.default_rng(0), design.drawable(n).codes(n)
    members = None if codes is None else [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    for _ in range(resamples):
        if members is None:
            yield rng.integers(0, n, n)
        else:
            yield np.concatenate([members[code] for code in rng.integers(0, len(members), len(members))])


def resampled_means(scores: np.ndarray, resamples: int = RESAMPLES, design: SampleDesign = INDEPENDENT) -> np.ndarray:
    """Returns the means of resampled images, (resamples, R).

    Args:
        scores: float64 (R, N): rows over the same N images, N at least 1.
        resamples: How often N images are drawn with replacement; the draws depend on N and on a fixed seed only.
        design: Images of one group are drawn together, as many groups as there are; a mean is the sum of the weighted
            scores that were drawn over that of their weights.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; of groups: Davison and Hinkley 1997,
        "Bootstrap Methods and their Application", section 3.8.
    """
    design = design.drawable(scores.shape[1])
    sums, sizes = design.sums(scores), design.sums(np.ones((1, scores.shape[1])))[0]
    n = len(sizes)
    rng = np.random.default_rng(SEED)
    means = np.empty((resamples, len(scores)))
    chunk = max(1, _CELLS // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        counts = counts.astype(np.float64)
        means[start : start + rows] = counts @ sums.T / (counts @ sizes)[:, None]
    return means
