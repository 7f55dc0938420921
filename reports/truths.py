"""What is known of a control's robust score: exactly, or no better than the lowest score of its own attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from registry import Budget, KnownBy
from reports.cards import Cell
from reports.scores import ContestScores
from reports.selection import Contest
from results.certificates import CERTIFIED


@dataclass(frozen=True)
class Known:
    """The robust score that a control is graded by."""

    value: float
    """A fraction, over the samples and training seeds that the control was evaluated on."""
    exact: bool
    """Whether it owes nothing to the control's own attacks; otherwise it can hardly differ from what was measured."""
    apart: float = 0.0
    """Share of clean images on which the control scores otherwise than the model whose truth this is."""


def truth_of(cells: Sequence[Cell], contest: Contest, scores: ContestScores, budget: Budget) -> Known:
    """Returns the robust score as the entry says it is known; the lowest score of any attack where that is missing.

    Args:
        cells: The control's records, one for each training seed; their sample tables are readable.
        contest: The cells that meet, its base among them.
        scores: The scores of the contest.
        budget: One that the control was evaluated at.
    """
    facts, value = cells[0].defense, None
    if facts.truth.known_by == KnownBy.CERTIFICATE:
        value = _certified(cells, budget)
    elif facts.truth.known_by == KnownBy.BASE:
        base = _of_the_base(cells, contest, scores, budget)
        if base is not None:
            return base
    if value is not None:
        return Known(value, exact=True)
    return Known(float(scores.of(facts.name).best_known[budget.label].mean()), exact=False)


def _certified(cells: Sequence[Cell], budget: Budget) -> float | None:
    """Returns the share of samples that the certificate proves, or None where a seed has none."""
    metrics = [result.metrics for cell in cells for own, result in cell.budgets if own.label == budget.label]
    proven = metrics and all(CERTIFIED in found for found in metrics)
    return fmean(found[CERTIFIED].value for found in metrics) if proven else None


def _of_the_base(cells: Sequence[Cell], contest: Contest, scores: ContestScores, budget: Budget) -> Known | None:
    """Returns the lowest score of the wrapped model of the same seeds and samples, or None where one is missing."""
    name = cells[0].defense.base
    base = scores.of(name) if scores.has(name) else None
    if base is None or budget.label not in base.best_known:
        return None
    seeds = [cell.seed for cell in contest.entrants[name]]
    own = scores.of(cells[0].defense.name)
    if not {cell.seed for cell in cells} <= set(seeds) or not np.isin(own.sample_ids, base.sample_ids).all():
        return None
    same = np.ix_([seeds.index(cell.seed) for cell in cells], np.isin(base.sample_ids, own.sample_ids))
    apart = float((own.clean != base.clean[same]).mean())
    return Known(float(base.best_known[budget.label][same].mean()), exact=True, apart=apart)
