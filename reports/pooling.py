"""How the training seeds of one defense become one number: means over seeds, intervals over images, spread apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from results.bootstrap import resampled_means
from results.record import BudgetResult, Estimate, MemberResult
from results.sample_design import INDEPENDENT, SampleDesign
from results.statistics import ALPHA


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A quantity over the training seeds of a row."""

    estimate: Estimate
    """Mean over seeds; its interval speaks of other test images, not of other seeds."""
    seeds: tuple[float, ...]
    """The value of each seed."""
    counts: tuple[int, ...] = ()
    """Number of samples behind each seed's value, where they may differ."""

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return self.estimate.value

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest seed."""
        return min(self.seeds), max(self.seeds)


@dataclass(frozen=True, kw_only=True)
class PooledMember:
    """What one attack of the ensemble did, summed over the training seeds."""

    name: str
    objective: str
    source: str
    backward: str
    options: Mapping[str, object]
    attempted: int
    lowered: int
    broken: int
    robust_after: float
    errors: int
    violations: int
    unmoved: int
    no_gradient: int
    forwards: int
    backwards: int
    seconds: float
    losses: tuple[float, ...] = ()
    loss_rows: int = 0


def pool_scores(estimates: Sequence[Estimate], interval: Estimate | None) -> Pooled:
    """Returns the mean over seeds of a score that every sample has.

    Args:
        estimates: The mean score of each seed as its record states it.
        interval: Mean and interval of the per-sample means over seeds; None where a sample table is lost, and the
            ends of the seeds' intervals are averaged instead.
    """
    if len(estimates) == 1:
        return Pooled(estimate=estimates[0], seeds=(estimates[0].value,))
    if interval is None:
        return pool_estimates(estimates)
    return Pooled(estimate=interval, seeds=tuple(estimate.value for estimate in estimates))


def mean_estimates(scores: Sequence[np.ndarray], design: SampleDesign = INDEPENDENT) -> list[Estimate]:
    """Returns mean and 95 % interval of each vector, as `results.statistics.mean_estimate`, for all in one bootstrap.

    Args:
        scores: Vectors of graded scores over the same samples, each (n,).
        design: Which samples belong together, and how much each counts.
    """
    if not scores:
        return []
    matrix = np.stack(scores).astype(np.float64)
    low, high = np.quantile(resampled_means(matrix, design=design), [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    values = np.average(matrix, axis=1, weights=design.weights)
    ends = zip(values, np.minimum(low, values), np.maximum(high, values), strict=True)
    n = matrix.shape[1]
    return [Estimate(value=float(value), low=float(lo), high=float(hi), n=n) for value, lo, hi in ends]


def pool_estimates(estimates: Sequence[Estimate]) -> Pooled:
    """Returns the mean over seeds where only the records' estimates are known.

    The seeds share their test images, so the averaged ends of their intervals are no narrower than the interval
    of the mean.
    """
    pooled = Estimate(
        value=fmean(estimate.value for estimate in estimates),
        low=fmean(estimate.low for estimate in estimates),
        high=fmean(estimate.high for estimate in estimates),
        n=max(estimate.n for estimate in estimates),
    )
    return Pooled(
        estimate=pooled,
        seeds=tuple(estimate.value for estimate in estimates),
        counts=tuple(estimate.n for estimate in estimates),
    )


def pool_named(estimates: Sequence[Mapping[str, Estimate]]) -> dict[str, Pooled]:
    """Returns the mean over seeds of every name that all seeds have, in the order of the first."""
    names = [name for name in estimates[0] if all(name in found for found in estimates)] if estimates else []
    return {name: pool_estimates([found[name] for found in estimates]) for name in names}


def pool_members(results: Sequence[BudgetResult]) -> tuple[PooledMember, ...]:
    """Returns the attacks of a budget, summed over seeds, in the order in which they ran."""
    names = dict.fromkeys(member.name for result in results for member in result.members)
    return tuple(_pool_member(name, results) for name in names)


def _pool_member(name: str, results: Iterable[BudgetResult]) -> PooledMember:
    found = [member for result in results for member in result.members if member.name == name]
    card = found[0].card
    totals = ("attempted", "lowered", "broken", "errors", "violations", "unmoved", "no_gradient")
    spent = ("forwards", "backwards", "seconds")
    losses, loss_rows = _pooled_losses(found)
    return PooledMember(
        name=name,
        objective=str(card.get("objective", "")),
        source=str(card.get("source", "victim")),
        backward=str(card.get("backward", "true")),
        options=dict(card.get("options") or {}),
        robust_after=fmean(member.robust_after for member in found),
        losses=losses,
        loss_rows=loss_rows,
        **{field: sum(getattr(member, field) for member in found) for field in (*totals, *spent)},
    )


def _pooled_losses(found: Iterable[MemberResult]) -> tuple[tuple[float, ...], int]:
    """Returns the mean losses of one attack over training seeds, each row counting alike, and their rows."""
    kept = [member for member in found if member.losses]
    weights = [member.loss_rows for member in kept]
    columns = zip(*(member.losses for member in kept), strict=True)
    return tuple(float(np.average(column, weights=weights)) for column in columns), sum(weights)
