"""Samples that belong together, e.g. the slices of one volume: whole groups are then drawn, and signs are theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from registry.errors import InputContractError

Groups = ArrayLike | None
"""(N,): which patient, volume or lesion each sample belongs to, any labels; None where samples are independent."""


def codes_of(groups: Groups, n: int) -> np.ndarray | None:
    """Returns the group of each sample as 0 to G - 1, int64 (N,), or None where every sample is alone in its group.

    Raises:
        InputContractError: There is not one group for each of the n samples.
    """
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputContractError(f"expected one group for each of {n} samples, got shape {labels.shape}")
    names, codes = np.unique(labels, return_inverse=True)
    return None if len(names) == n else codes.reshape(-1)


def group_sums(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns the sum of each row's scores over the samples of each group, float64 (R, G), from (R, N)."""
    size = int(codes.max()) + 1 if len(codes) else 0
    return np.stack([np.bincount(codes, weights=row, minlength=size) for row in scores])
