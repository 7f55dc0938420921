"""Which rows are better than others beyond chance: paired tests over the same images, ranks and ties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests

from registry.errors import InputContractError
from results.sample_design import INDEPENDENT, SampleDesign
from results.sign_flips import RESAMPLES, exact_p_values, flipped_sums, sampled_p_values
from results.statistics import ALPHA


class Standing(NamedTuple):
    """Where a row stands on its board."""

    rank: int
    """1 + the number of rows that are significantly better."""
    tie_group: int
    """Number of the group of rows that share this rank, from 1 at the top."""


def paired_p_value(a: ArrayLike, b: ArrayLike, design: SampleDesign = INDEPENDENT) -> float:
    """Returns the one-sided p value against "a is not better than b" over the same images.

    One vector of 0/1 scores on each side: the exact McNemar test. Otherwise the sign-flip test, of which that is a
    case, on the differences between the images' scores, averaged over seeds first: over all assignments of signs
    where the scores of each seed are 0 or 1, over 99,999 random ones and the observed one where they are graded.
    Images of one group have one sign: it is their sum that could as well be the other way round.

    Args:
        a: Scores of one row, (N,) or (seeds, N).
        b: Scores of the other, (N,) or (seeds, N); the number of seeds may differ.
        design: Which samples belong together, and how much each counts.

    Raises:
        InputContractError: The samples are not the same number on both sides, or a score is not finite.
    """
    p = _p_values({"a": _matrix("a", a), "b": _matrix("b", b)}, RESAMPLES, design)
    return p["a", "b"]


def tie_groups(rows: Mapping[str, ArrayLike], design: SampleDesign = INDEPENDENT) -> dict[str, Standing]:
    """Returns rank and tie group of each row.

    Row x is significantly better than row y if the one-sided paired test of that ordered pair, Holm-adjusted over all
    ordered pairs of the board, has p <= 0.05. Seeds are pooled by averaging their scores per image, so that images are
    the unit of every test: it speaks of these trained models on other images, not of other training runs. Where images
    belong together, groups are the unit.

    Args:
        rows: Scores by the row's name, (N,) or (seeds, N), all over the same images in the same order.
        design: Which samples belong together, and how much each counts.

    Raises:
        InputContractError: Rows have different numbers of samples, or a score is not finite.
    """
    matrices = {name: _matrix(name, scores) for name, scores in rows.items()}
    p = _p_values(matrices, _enough_resamples(len(matrices) * (len(matrices) - 1)), design)
    better_than = dict.fromkeys(matrices, 0)
    if p:
        significant, *_ = multipletests(list(p.values()), alpha=ALPHA, method="holm")
        for (_, worse), holds in zip(p, significant, strict=True):
            better_than[worse] += int(holds)
    levels = sorted(set(better_than.values()))
    return {name: Standing(count + 1, levels.index(count) + 1) for name, count in better_than.items()}


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Returns the one-sided exact McNemar p value: the chance of that many wins or more among the discordant samples.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    return float(binom.sf(wins - 1, wins + losses, 0.5))


def _p_values(rows: Mapping[str, np.ndarray], resamples: int, design: SampleDesign) -> dict[tuple[str, str], float]:
    """Returns the p value of every ordered pair (better, worse), from each row's sums over what has one sign."""
    lengths = {name: scores.shape[1] for name, scores in rows.items()}
    if len(set(lengths.values())) > 1:
        raise InputContractError(f"expected scores of the same samples in every row, got {lengths}")
    rows = {name: design.sums(scores) for name, scores in rows.items()}
    whole = {name for name, sums in rows.items() if (sums == np.rint(sums)).all()}
    flipped = {} if len(whole) == len(rows) else _flipped(rows, resamples)
    found = {}
    for one, other in combinations(rows, 2):
        if one in whole and other in whole:
            pair = _exact(rows[one], rows[other])
        else:
            differences = rows[one].mean(axis=0) - rows[other].mean(axis=0)
            pair = sampled_p_values(differences, flipped[one] - flipped[other])
        found[one, other], found[other, one] = pair
    return {pair: found[pair] for pair in permutations(rows, 2)}


def _exact(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns the p values of both directions for 0/1 scores, (seeds, N), or their sums over groups."""
    unit = math.lcm(len(one), len(other))
    differences = one.sum(axis=0) * (unit // len(one)) - other.sum(axis=0) * (unit // len(other))
    if unit == 1 and np.abs(differences).max(initial=0) <= 1:
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        return mcnemar_p_value(wins, losses), mcnemar_p_value(losses, wins)
    return exact_p_values(differences.astype(np.int64))


def _flipped(rows: Mapping[str, np.ndarray], resamples: int) -> dict[str, np.ndarray]:
    """Returns each row's sums under the same random signs of images."""
    sums = flipped_sums(np.stack([scores.mean(axis=0) for scores in rows.values()]), resamples)
    return dict(zip(rows, sums.T.copy(), strict=True))


def _enough_resamples(pairs: int) -> int:
    """Returns so many resamples that Holm's strictest threshold can be met with room for one crossing."""
    return max(RESAMPLES, math.ceil(2 * pairs / ALPHA))


def _matrix(name: str, scores: ArrayLike) -> np.ndarray:
    matrix = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise InputContractError(f"row {name}: expected finite scores, (N,) or (seeds, N), got shape {matrix.shape}")
    return matrix
