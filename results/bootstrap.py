"""The bootstrap over images: every vector of a call is resampled with the same draws, and every call repeats them."""

from __future__ import annotations

import numpy as np

SEED = 20270
RESAMPLES = 2000
"""Resamples behind an interval."""
_CELLS = 250_000
"""Resampled images held at a time: few enough for the processor's cache."""


def resampled_means(scores: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Returns the means of resampled images, (resamples, R).

    Args:
        scores: float64 (R, N): rows over the same N images, N at least 1.
        resamples: How often N images are drawn with replacement; the draws depend on N and on a fixed seed only.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    n = scores.shape[1]
    rng = np.random.default_rng(SEED)
    means = np.empty((resamples, len(scores)))
    chunk = max(1, _CELLS // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts.astype(np.float64) @ scores.T / n
    return means
