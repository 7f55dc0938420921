"""What a defense scores under corruption: its mean, its balanced mean, and whether a constant answer does as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.pooling import pool_estimates, pool_named
from results.recalls import mean_of_shares
from results.record import BudgetResult, Estimate
from results.statistics import united


@dataclass(frozen=True, kw_only=True)
class CorruptedScore:
    """Scores in [0, 1] under one corruption at one severity, or the mean over several of them."""

    plain: Estimate
    """Mean score of all samples."""
    recalls: Mapping[str, Estimate]
    """Mean score of the samples of each class that occurs; empty where there are no classes."""
    constant: float | None
    """Score of always answering the majority class on the same samples; None where there are no classes."""
    grouped: bool = False
    """Whether samples of several classes may be of one patient, so that recalls are not independent."""

    @property
    def balanced(self) -> Estimate | None:
        """Balanced accuracy, the mean of the class recalls; None where there are no classes."""
        if not self.recalls:
            return None
        shares = list(self.recalls.values())
        found = mean_of_shares(shares)
        return united(found, pool_estimates(shares).estimate) if self.grouped else found

    @property
    def below_constant(self) -> bool:
        """Whether the interval of the mean lies under the constant-predictor line."""
        return self.constant is not None and self.plain.high < self.constant

    @property
    def at_chance(self) -> bool:
        """Whether the interval of the balanced accuracy is not above that of a constant answer, 1 / classes."""
        return bool(self.recalls) and self.balanced.low <= 1 / len(self.recalls)


def corrupted_score(results: Sequence[BudgetResult], constant: float | None, grouped: bool) -> CorruptedScore:
    """Returns the mean over training seeds of one corruption at one severity.

    Args:
        results: What the record of each seed states, at least one.
        constant: Score of always answering the majority class.
        grouped: Whether samples of several classes may be of one patient.
    """
    recalls = pool_named([result.class_recall for result in results])
    return CorruptedScore(
        plain=pool_estimates([result.metrics["robust"] for result in results]).estimate,
        recalls={name: pooled.estimate for name, pooled in recalls.items()},
        constant=constant,
        grouped=grouped,
    )


def averaged(scores: Sequence[CorruptedScore]) -> CorruptedScore:
    """Returns the mean over severities or corruptions, each counting alike.

    They share their test images as training seeds do, so that the averaged ends of their intervals are no narrower
    than the interval of the mean.

    Args:
        scores: At least one, all of the same samples.
    """
    recalls = pool_named([score.recalls for score in scores])
    return CorruptedScore(
        plain=pool_estimates([score.plain for score in scores]).estimate,
        recalls={name: pooled.estimate for name, pooled in recalls.items()},
        constant=scores[0].constant,
        grouped=any(score.grouped for score in scores),
    )
