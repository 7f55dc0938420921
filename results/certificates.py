"""What a certificate proves, and whether a measured score contradicts it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from registry.errors import ViolatedCertificateError
from results.record import EvaluationRecord
from results.sample_table import SAMPLE_ID, score_column

CERTIFIED = "certified"
"""Metric of a budget: mean of the lower bounds of all samples."""
MAJORITY = "certified_majority"
"""Metric of a budget, stochastic defenses only: share of samples whose majority vote of many draws is proven right."""
SCORING_DRAWS = 100
"""Fewest draws that the score of a stochastic sample is the mean of."""
CHANCE = 1e-6
"""Chance at which the score of one sample may lie under a true bound by the luck of its draws alone."""
ROUNDING = 1e-6
"""What float32 storage may take from a score."""


def certified_column(budget_index: int) -> str:
    """Returns the column of the lower bounds at the record's budget of this index."""
    return f"certified_{budget_index}"


def violated(scores: np.ndarray, bounds: np.ndarray, *, stochastic: bool) -> np.ndarray:
    """Returns which samples score less than their certificate allows: bool (N,).

    The mean score of draws scatters around the true one; a stochastic sample counts only where its score is under the
    bound by more than Hoeffding's inequality leaves to chance.

    Args:
        scores: Worst scores found, (N,).
        bounds: Lower bounds, (N,).
        stochastic: Whether scores are means over draws.
    Source: Hoeffding 1963, doi 10.1080/01621459.1963.10500830, theorem 2.
    """
    slack = math.sqrt(math.log(1 / CHANCE) / (2 * SCORING_DRAWS)) if stochastic else 0.0
    return scores < bounds - slack - ROUNDING


def check_certificates(record: EvaluationRecord, samples: pd.DataFrame) -> None:
    """Compares every score of a record with its certificate.

    Args:
        record: A finished record; one without certificates passes.
        samples: Its sample table.

    Raises:
        ViolatedCertificateError: A score is lower than its certificate allows; either one of them is wrong.
    """
    stochastic = record.defense.get("randomness", "none") != "none"
    for index, result in enumerate(record.budgets):
        if certified_column(index) not in samples:
            continue
        scores = samples[score_column(index)].to_numpy(np.float64)
        bounds = samples[certified_column(index)].to_numpy(np.float64)
        below = violated(scores, bounds, stochastic=stochastic)
        if below.any():
            first = int(below.argmax())
            raise ViolatedCertificateError(
                f"record {record.key}: {int(below.sum())} samples score less at {result.budget['norm']} "
                f"{result.budget['eps']:.4g} than their certificate allows, e.g. sample "
                f"{samples[SAMPLE_ID].iloc[first]} scores {scores[first]:.3f}, proven are {bounds[first]:.3f}; "
                "the certificate of the entry or the suite is wrong"
            )
