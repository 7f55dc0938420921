"""The paired sign-flip test: were two rows equally good, each image's difference could as well have the other sign.

`scipy.stats.permutation_test` does the same for one pair: it lists all 2^n signs of small sets and draws anew for each
pair of larger ones. Here all signs count at any size, and one set of draws serves all pairs of a board; tests compare.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len

SEED = 20271
RESAMPLES = 99_999
"""Random assignments of signs behind a p value, at least; with the one that was observed they make 100,000."""
_CELLS = 250_000
"""Signs held at a time: few enough for the processor's cache."""


def exact_p_values(differences: np.ndarray) -> tuple[float, float]:
    """Returns the one-sided p values of whole differences: of a sum at least as high, and of one at least as low.

    All 2^n assignments of signs count, through the Fourier transform of their law: the transform of a sum is the
    product of those of its terms. With differences of -1, 0 and 1 this is the exact McNemar test.

    Args:
        differences: int64 (N,), in the smallest unit in which all are whole; zeros are no evidence.

    Source: Fisher 1935, "The design of experiments", section 21; Pagano and Tritchler 1983, "On obtaining permutation
        distributions in polynomial time".
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total, gained = int(sizes @ counts), int(differences[differences > 0].sum())
    length = next_fast_len(total + 1, real=True)
    turns = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    transform = np.ones(len(turns), dtype=np.complex128)
    for size, count in zip(sizes, counts, strict=True):
        transform *= ((1 + turns**size) / 2) ** count
    law = np.fft.irfft(transform, length)[: total + 1] if length > 1 else np.ones(1)
    rarest = 0.5 ** int(counts.sum())  # all signs as observed; rounding of the transform hides less than 1e-15
    high, low = law[gained:].sum(), law[: gained + 1].sum()
    return float(np.clip(high, rarest, 1.0)), float(np.clip(low, rarest, 1.0))


def flipped_sums(scores: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Returns each row's sum over images with random signs, (resamples, R).

    An image's sign is the same in all rows: the difference of two columns is that of the rows' differences with random
    signs. Images on which all rows agree have no part in any difference and are left out.

    Args:
        scores: float64 (R, N): rows over the same N images.
        resamples: How often N signs are drawn; the draws depend on the number of images and on a fixed seed only.
    """
    scores = scores[:, np.ptp(scores, axis=0) > 0]
    n = scores.shape[1]
    rng = np.random.default_rng(SEED)
    sums = np.zeros((resamples, len(scores)))
    chunk = max(1, _CELLS // max(n, 1))
    for start in range(0, resamples if n else 0, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(256, size=(rows, (n + 7) // 8), dtype=np.uint8)
        kept = np.unpackbits(drawn, axis=1, count=n).astype(np.float64)
        sums[start : start + rows] = 2 * kept @ scores.T - scores.sum(axis=1)
    return sums


def sampled_p_values(differences: np.ndarray, flipped: np.ndarray) -> tuple[float, float]:
    """Returns the one-sided p values as `exact_p_values`, for any differences: the observed signs count as one draw.

    Args:
        differences: float64 (N,).
        flipped: Their sums with random signs, (resamples,).

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    """
    observed, rounding = differences.sum(), 1e-12 * (len(differences) + np.abs(differences).sum())
    high, low = (flipped >= observed - rounding).sum(), (flipped <= observed + rounding).sum()
    return float(high + 1) / (len(flipped) + 1), float(low + 1) / (len(flipped) + 1)
