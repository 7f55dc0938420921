"""How samples count: which of them belong together, and how much each weighs in a mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from registry.errors import InputContractError
from results.sample_table import GROUP, WEIGHT


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleDesign:
    """What is known of a number of samples beside their scores; nothing, where they are independent and equal."""

    groups: np.ndarray | None = None
    """(N,): which patient, volume or lesion each sample belongs to, any labels. Whole groups are drawn, and the sign of
    a difference is that of a group."""
    weights: np.ndarray | None = None
    """(N,): how much each sample counts in means, over 0."""

    @classmethod
    def of(cls, samples: pd.DataFrame) -> SampleDesign:
        """Returns what a sample table says."""
        groups = samples[GROUP].to_numpy() if GROUP in samples else None
        return cls(groups=groups, weights=samples[WEIGHT].to_numpy(np.float64) if WEIGHT in samples else None)

    @classmethod
    def shared(cls, designs: Sequence[SampleDesign]) -> SampleDesign:
        """Returns what several tables of the same samples say; older ones do not tell of groups, and others do."""
        groups = [design.groups for design in designs if design.groups is not None]
        weights = [design.weights for design in designs if design.weights is not None]
        return cls(groups=_agreed(groups), weights=_agreed(weights))

    def take(self, rows: ArrayLike) -> SampleDesign:
        """Returns the design of some samples (indices or a boolean mask)."""
        parts = {"groups": self.groups, "weights": self.weights}
        return SampleDesign(**{name: part if part is None else part[rows] for name, part in parts.items()})

    def equally(self) -> SampleDesign:
        """Returns the same samples, all with the same weight."""
        return SampleDesign(groups=self.groups)

    def drawable(self, n: int) -> SampleDesign:
        """Returns the design without its groups where all n samples are of one, which says nothing of other groups."""
        codes = self.codes(n)
        return SampleDesign(weights=self.weights) if codes is not None and not codes.any() else self

    def codes(self, n: int) -> np.ndarray | None:
        """Returns the groups of n samples as 0 to G - 1, int64 (n,), or None where none holds two of them.

        Raises:
            InputContractError: There is not one group for each of them.
        """
        if self.groups is None:
            return None
        labels = np.asarray(self.groups)
        if labels.shape != (n,):
            raise InputContractError(f"expected one group for each of {n} samples, got shape {labels.shape}")
        names, codes = np.unique(labels, return_inverse=True)
        return None if len(names) == n else codes.reshape(-1)

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Returns each row's sum of weighted scores over the samples of each unit, float64 (R, units), from (R, N).

        Units are the groups, or the samples where none holds two.
        """
        weighted = scores if self.weights is None else scores * self.weights
        codes = self.codes(scores.shape[1])
        if codes is None:
            return weighted
        return np.stack([np.bincount(codes, weights=row, minlength=int(codes.max()) + 1) for row in weighted])


INDEPENDENT = SampleDesign()
"""Samples that have nothing to do with each other and count alike."""


def _agreed(vectors: Sequence[np.ndarray]) -> np.ndarray | None:
    """Returns the vector that all are, or None."""
    return vectors[0] if vectors and all(np.array_equal(vectors[0], other) for other in vectors) else None
