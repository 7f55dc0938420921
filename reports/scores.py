"""Per-sample scores of the rows of a contest: read once, lined up by sample, lowered by every other record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from registry import Budget
from registry.errors import InputContractError, ResultsError
from reports.cards import Cell
from reports.pooling import Pooled, mean_estimates, pool_estimates
from reports.selection import Contest
from results.best_known import ReadSamples, best_known
from results.budgets import within
from results.consistency import ROUNDING
from results.record import BudgetResult, Estimate, EvaluationRecord
from results.sample_design import SampleDesign
from results.sample_table import GROUP, SAMPLE_ID, WEIGHT, score_column
from results.statistics import FAIL_BELOW, as_scores, attack_success_rate, is_binary, mean_estimate, united

CLEAN_COLUMN, LABEL_COLUMN = "clean_score", "clean_label"
KEPT = frozenset({SAMPLE_ID, GROUP, WEIGHT, CLEAN_COLUMN, LABEL_COLUMN})
"""Columns of a sample table that reports need, beside those that `FOUND` names."""
FOUND = ("score_", "member_", "step_")
"""Beginnings of the columns that say how low a score went, who lowered it, and when."""


@dataclass(frozen=True, kw_only=True)
class EntrantScores:
    """Scores of one defense, a row for each training seed: float64 (seeds, n)."""

    sample_ids: np.ndarray
    clean: np.ndarray
    robust: dict[str, np.ndarray]
    """Worst case of the ranking protocol, by the budget's label."""
    best_known: dict[str, np.ndarray]
    """Worst case over all records of the same weights, by the budget's label."""
    lowered_by: dict[str, tuple[str, ...]]
    """Protocols that lowered some sample below the ranking protocol's score, by the budget's label."""
    labels: np.ndarray | None
    """Class of each sample, (n,); None where there is no such thing, or not one for all seeds."""
    design: SampleDesign
    """Which samples belong together, and how much each counts, as far as all seeds agree."""


@dataclass(frozen=True)
class _Table:
    """The scores of one cell, samples ascending."""

    ids: np.ndarray
    clean: np.ndarray
    labels: np.ndarray | None
    design: SampleDesign
    scores: dict[str, np.ndarray]
    """Worst scores by the budget's label."""


class ContestScores:
    """The scores behind all boards of a contest, and their intervals.

    Args:
        contest: The cells that meet.
        frames: Returns the sample table of a record.
    """

    def __init__(self, contest: Contest, frames: ReadSamples) -> None:
        self._frames = frames
        self._frames_read: dict[str, pd.DataFrame] = {}
        self._tables: dict[str, _Table | None] = {}
        self.lost: dict[str, str] = {}
        """Records whose sample table is missing or damaged, and why."""
        self._rivals: dict[tuple[str, str | None], list[Cell]] = defaultdict(list)
        for cell in contest.rivals:
            self._rivals[_weights(cell)].append(cell)
        self._entrants = {name: self._entrant(cells) for name, cells in contest.entrants.items()}
        self.sample_ids = _most_complete(self._entrants.values())
        """Samples of a full row, sorted."""
        full = {name: found for name, found in self._entrants.items() if self.complete(name)}
        self.design = SampleDesign.shared([found.design for found in full.values()])
        """Which of those samples belong together, and how much each counts."""
        self._entrants |= {name: replace(found, design=self.design) for name, found in full.items()}
        self._estimates = self._estimate_all()

    def of(self, name: str) -> EntrantScores | None:
        """Returns the scores of a defense, or None where a sample table is missing or damaged."""
        return self._entrants[name]

    def frames(self, cells: Sequence[Cell]) -> list[pd.DataFrame] | None:
        """Returns the sample tables of some cells, or None where one is lost."""
        return None if None in [self._table(cell) for cell in cells] else [self._samples(cell.record) for cell in cells]

    def has(self, name: str | None) -> bool:
        """Returns whether a defense of this name takes part."""
        return name in self._entrants

    def complete(self, name: str) -> bool:
        """Returns whether a defense was scored on the same samples as a full row."""
        found = self._entrants[name]
        return found is not None and np.array_equal(found.sample_ids, self.sample_ids)

    def tried(self, cell: Cell, budget: Budget) -> dict[str, BudgetResult | None]:
        """Returns the other protocols that attacked a cell's weights in the same balls, and their results at a budget.

        On as many samples, and without an error: an attack that raised or met a few samples shows nothing.
        """
        rivals = self._rivals[_weights(cell)]
        found = {}
        for rival in rivals:
            if rival.n >= cell.n and without_errors(rival):
                here = [result for own, result in rival.budgets if own.label == budget.label]
                found[rival.protocol] = here[0] if here else found.get(rival.protocol)
        return found

    def success_rate(self, name: str, label: str) -> Pooled | None:
        """Returns the attack success rate of the best known scores of a defense at a budget, over its seeds."""
        own = self._entrants[name]
        if own is None:
            return None
        pairs = zip(own.clean, own.best_known[label], strict=True)
        return pool_estimates([attack_success_rate(clean, lowest, FAIL_BELOW, own.design) for clean, lowest in pairs])

    def estimate(self, name: str, kind: str, budget: str = "") -> Estimate | None:
        """Returns mean and interval of the per-sample means over seeds, or None where the row is not complete.

        Args:
            name: The defense.
            kind: "clean", "robust" or "best_known".
            budget: Label of the budget; empty for clean scores.
        """
        return self._estimates.get((name, kind, budget))

    def _entrant(self, cells: Sequence[Cell]) -> EntrantScores | None:
        tables = [self._table(cell) for cell in cells]
        if None in tables or any(not np.array_equal(table.ids, tables[0].ids) for table in tables):
            return None
        budgets = [budget for budget, _ in cells[0].budgets if all(budget.label in table.scores for table in tables)]
        best, lowered_by = {}, {}
        for budget in budgets:
            lowest = [self._lowest(cell, table, budget) for cell, table in zip(cells, tables, strict=True)]
            best[budget.label] = np.stack([scores for scores, _ in lowest])
            lowered_by[budget.label] = tuple(sorted({name for _, names in lowest for name in names}))
        return EntrantScores(
            sample_ids=tables[0].ids,
            clean=np.stack([table.clean for table in tables]),
            robust={budget.label: np.stack([table.scores[budget.label] for table in tables]) for budget in budgets},
            best_known=best,
            lowered_by=lowered_by,
            labels=_shared([table.labels for table in tables]),
            design=SampleDesign.shared([table.design for table in tables]),
        )

    def _lowest(self, cell: Cell, table: _Table, budget: Budget) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns a cell's per-sample scores lowered by the other records of its weights, and who lowered them."""
        rivals = [rival for rival in self._rivals[_weights(cell)] if self._may_lower(rival, table, budget)]
        if not rivals:
            return table.scores[budget.label], ()
        found = best_known(cell.record, budget, [rival.record for rival in rivals], self._samples)
        return found.scores, found.lowered_by

    def _may_lower(self, rival: Cell, table: _Table, budget: Budget) -> bool:
        """Returns whether a record could lower a score: most cannot, and lining up their samples takes time."""
        other = self._table(rival)
        found = [] if other is None else [other.scores[own.label] for own, _ in rival.budgets if within(own, budget)]
        if not found:
            return False
        same_samples = np.array_equal(other.ids, table.ids)
        return not same_samples or any((scores < table.scores[budget.label]).any() for scores in found)

    def _table(self, cell: Cell) -> _Table | None:
        """Returns the scores of a cell in the order of the sample ids, or None if they are lost."""
        key = cell.record.key
        if key not in self._tables:
            try:
                self._tables[key] = _as_table(cell, self._samples(cell.record))
            except (ResultsError, InputContractError, KeyError, TypeError, ValueError) as error:
                self.lost[key] = str(error)
                self._tables[key] = None
        return self._tables[key]

    def _samples(self, record: EvaluationRecord) -> pd.DataFrame:
        """Returns the scores in a record's sample table, in the order of the sample ids; read once."""
        if record.key not in self._frames_read:
            frame = self._frames(record)
            names = [name for name in frame if name in KEPT or name.startswith(FOUND)]
            frame = frame[names]
            ascending = frame[SAMPLE_ID].is_monotonic_increasing
            self._frames_read[record.key] = frame if ascending else frame.sort_values(SAMPLE_ID, ignore_index=True)
        return self._frames_read[record.key]

    def _estimate_all(self) -> dict[tuple[str, str, str], Estimate]:
        """Returns the interval of every pooled score; graded ones share one bootstrap, which is what takes time.

        A bootstrap of few broken or few surviving samples ends too early, and where all seeds have 0/1 scores Wilson's
        interval does not: the mean of the seeds' ends counts as well.
        """
        matrices = self._matrices()
        vectors = {key: scores.mean(axis=0) for key, scores in matrices.items()}
        graded = {key: vector for key, vector in vectors.items() if not is_binary(vector)}
        design = self.design
        found = {key: mean_estimate(v, True, design) for key, v in vectors.items() if key not in graded}
        for key, estimate in zip(graded, mean_estimates(list(graded.values()), design), strict=True):
            scores = matrices[key]
            shares = [mean_estimate(own, True, design) for own in scores] if is_binary(scores) else []
            found[key] = united(estimate, pool_estimates(shares).estimate) if shares else estimate
        return found

    def _matrices(self) -> dict[tuple[str, str, str], np.ndarray]:
        matrices = {}
        for name in self._entrants:
            if not self.complete(name):
                continue
            found = self._entrants[name]
            matrices[name, "clean", ""] = found.clean
            matrices |= {(name, "robust", label): scores for label, scores in found.robust.items()}
            matrices |= {(name, "best_known", label): scores for label, scores in found.best_known.items()}
        return matrices


def _as_table(cell: Cell, frame: pd.DataFrame) -> _Table:
    """Returns the scores of a sample table.

    Raises:
        ValueError: The record states another mean than its table has.
    """
    columns = {budget.label: score_column(index) for index, (budget, _) in enumerate(cell.budgets)}
    table = _Table(
        ids=frame[SAMPLE_ID].to_numpy(),
        clean=as_scores(frame[CLEAN_COLUMN]),
        labels=frame[LABEL_COLUMN].to_numpy() if LABEL_COLUMN in frame else None,
        design=SampleDesign.of(frame),
        scores={label: as_scores(frame[column]) for label, column in columns.items()},
    )
    stated = [("clean", cell.record.clean["clean"].value, table.clean)]
    stated += [(b.label, result.metrics["robust"].value, table.scores[b.label]) for b, result in cell.budgets]
    for name, said, scores in stated:
        found = float(np.average(scores, weights=table.design.weights))
        if abs(said - found) > ROUNDING:
            raise ValueError(f"{name}: the record says {said:.1%}, its sample table {found:.1%}")
    return table


def _shared(labels: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Returns the labels that all tables share, or None."""
    first = labels[0]
    return first if first is not None and all(np.array_equal(first, other) for other in labels) else None


def _weights(cell: Cell) -> tuple[str, str | None]:
    return cell.defense.name, cell.record.checkpoint.sha256 if cell.record.checkpoint else None


def _most_complete(entrants: Iterable[EntrantScores | None]) -> np.ndarray:
    """Returns the sample ids that most rows with the largest number of samples share."""
    found = [entrant.sample_ids for entrant in entrants if entrant is not None]
    if not found:
        return np.zeros(0, dtype=np.int64)
    longest = [ids for ids in found if len(ids) == max(map(len, found))]
    return max(longest, key=lambda ids: (sum(np.array_equal(ids, other) for other in longest), ids.tolist()))


def without_errors(cell: Cell) -> bool:
    """Returns whether no attack of a cell raised or met an error: one that did shows nothing of robustness."""
    return not any(member.errors or member.error for _, result in cell.budgets for member in result.members)
