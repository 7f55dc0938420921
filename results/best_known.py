"""The lowest score anybody has measured for each sample of a cell, over every record that attacked the same thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from registry import Budget, Randomness
from registry.errors import InputContractError
from results.budgets import as_budget, budget_index, within
from results.record import Card, Estimate, EvaluationRecord, RecordStatus
from results.sample_design import SampleDesign
from results.sample_table import SAMPLE_ID, score_column
from results.statistics import is_binary, mean_estimate

ReadSamples = Callable[[EvaluationRecord], pd.DataFrame]
"""Returns the sample table of a record, e.g. `RecordStore.samples`."""

ATTACKER_REVISIONS = frozenset({"protocol", "engine", "twin"})
"""Revisions that may differ between records of one victim: what attacked it, and through which surrogate."""


@dataclass(frozen=True, kw_only=True)
class BestKnown:
    """The worst case over every record of one defense, checkpoint, data and budget."""

    estimate: Estimate
    """Mean of the lowest scores."""
    scores: np.ndarray
    """float64 (N,): lowest score of each sample of the ranked record, in the order of its sample table."""
    lowered_by: tuple[str, ...]
    """Names of the other protocols that lowered a sample below the ranked record's score, sorted."""


def best_known(
    record: EvaluationRecord, budget: Budget | Card, others: Iterable[EvaluationRecord], samples_of: ReadSamples
) -> BestKnown:
    """Returns the per-sample minimum over a ranked record and all comparable ones.

    A record counts if it is done and names the same defense, checkpoint, data, split, threat model (all fields) and
    the revisions of all but protocol, engine and twin; of its samples those count that the ranked record holds too.
    What it found in smaller balls counts as well.

    The scores of a stochastic defense are estimates, whose minimum over records or budgets reads lower than any of
    them: of such a defense it is the one record at this budget that has the lowest mean over all samples. One that
    holds only some of them stands for them with the ranked record's scores of the others.

    Args:
        record: The ranked protocol's finished record.
        budget: The budget, as a value or as its card.
        others: Any records, those of other cells among them; `record` itself does no harm.
        samples_of: Reads a record's sample table.

    Raises:
        InputContractError: The ranked record has no result at this budget.
        ResultsError: A sample table is missing or damaged.
    """
    own = None if budget_index(record, budget) is None else _scores_at(record, budget, samples_of)
    if own is None:
        raise InputContractError(
            f"record {record.key} has no scores at {as_budget(budget).label}; choose one of its budgets"
        )
    lowest, lowered_by = own, set()
    for other in others:
        if other.key == record.key or not same_question(other, record):
            continue
        scores = _scores_at(other, budget, samples_of)
        if scores is None:
            continue
        scores, name = scores.reindex(own.index), other.protocol["name"]
        if not is_stochastic(record):
            lowered_by |= {name} if (scores < own).any() else set()
            lowest = np.minimum(lowest, scores.fillna(np.inf))
            continue
        together = scores.fillna(own)
        if together.mean() < lowest.mean():
            lowest, lowered_by = together, {name}
    scores = lowest.to_numpy()
    estimate = mean_estimate(scores, is_binary(scores), SampleDesign.of(samples_of(record)))
    return BestKnown(estimate=estimate, scores=scores, lowered_by=tuple(sorted(lowered_by)))


def is_stochastic(record: EvaluationRecord) -> bool:
    """Returns whether the scores of a record are means over draws of its defense."""
    return record.defense.get("randomness", "none") != Randomness.NONE


def same_question(one: EvaluationRecord, other: EvaluationRecord) -> bool:
    """Returns whether two records attacked the same weights on the same data under the same rules."""
    return _victim(one) == _victim(other)


def _victim(record: EvaluationRecord) -> tuple:
    """Returns what two records must agree in for their scores to be about the same question.

    What the attacker knows is not part of it: the adversarials of one who sees less lie in the same ball.
    """
    threat_model = {name: value for name, value in record.protocol["threat_model"].items() if name != "knowledge"}
    return (
        record.dataset["name"],
        record.defense["name"],
        record.checkpoint.sha256 if record.checkpoint else None,
        record.data_sha256,
        record.split,
        threat_model,
        {name: revision for name, revision in record.revisions.items() if name not in ATTACKER_REVISIONS},
    )


def _scores_at(record: EvaluationRecord, budget: Budget | Card, samples_of: ReadSamples) -> pd.Series | None:
    """Returns the record's worst scores in the balls of a budget by sample id, or None where it has none."""
    if record.status is not RecordStatus.DONE or record.samples is None:
        return None
    if is_stochastic(record):
        here = budget_index(record, budget)
        places = [] if here is None else [here]
    else:
        places = [place for place, result in enumerate(record.budgets) if within(result.budget, budget)]
    if not places:
        return None
    table = samples_of(record).set_index(SAMPLE_ID)
    return table[[score_column(place) for place in places]].astype(np.float64).min(axis=1)
