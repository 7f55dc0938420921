"""Per-sample scores of the rows of a contest: read once, lined up by sample, lowered by every other record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from registry import Budget
from registry.errors import ResultsError
from reports.cards import Cell
from reports.pooling import mean_estimates
from reports.selection import Contest
from results.best_known import ReadSamples, best_known
from results.record import Estimate, EvaluationRecord
from results.sample_table import SAMPLE_ID, score_column
from results.statistics import is_binary, proportion

CLEAN_COLUMN = "clean_score"


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


class ContestScores:
    """The scores behind all boards of a contest, and their intervals.

    Args:
        contest: The cells that meet.
        frames: Returns the sample table of a record.
    """

    def __init__(self, contest: Contest, frames: ReadSamples) -> None:
        self._frames = frames
        self._tables: dict[str, pd.DataFrame] = {}
        self.lost: dict[str, str] = {}
        """Records whose sample table is missing or damaged, and why."""
        self._rivals = contest.rivals
        self._entrants = {name: self._entrant(cells) for name, cells in contest.entrants.items()}
        self.sample_ids = _most_complete(self._entrants.values())
        """Samples of a full row, sorted."""
        self._estimates = self._estimate_all()

    def of(self, name: str) -> EntrantScores | None:
        """Returns the scores of a defense, or None where a sample table is missing or damaged."""
        return self._entrants[name]

    def complete(self, name: str) -> bool:
        """Returns whether a defense was scored on the same samples as a full row."""
        found = self._entrants[name]
        return found is not None and np.array_equal(found.sample_ids, self.sample_ids)

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
        if any(table is None for table in tables) or any(not table.index.equals(tables[0].index) for table in tables):
            return None
        budgets = [budget for budget, _ in cells[0].budgets if all(budget.label in table for table in tables)]
        labels = [budget.label for budget in budgets]
        best, lowered_by = {}, {}
        for budget, label in zip(budgets, labels, strict=True):
            lowest = [self._lowest(cell, table, budget) for cell, table in zip(cells, tables, strict=True)]
            best[label] = np.stack([scores for scores, _ in lowest])
            lowered_by[label] = tuple(sorted({name for _, names in lowest for name in names}))
        return EntrantScores(
            sample_ids=tables[0].index.to_numpy(),
            clean=np.stack([table[CLEAN_COLUMN].to_numpy(np.float64) for table in tables]),
            robust={label: np.stack([table[label].to_numpy(np.float64) for table in tables]) for label in labels},
            best_known=best,
            lowered_by=lowered_by,
        )

    def _lowest(self, cell: Cell, table: pd.DataFrame, budget: Budget) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns a cell's per-sample scores lowered by the other records of its weights, and who lowered them."""
        rivals = [rival for rival in self._rivals if _same_weights(cell, rival) and self._table(rival) is not None]
        if not rivals:
            return table[budget.label].to_numpy(np.float64), ()
        found = best_known(cell.record, budget, [rival.record for rival in rivals], self._samples)
        return found.scores, found.lowered_by

    def _table(self, cell: Cell) -> pd.DataFrame | None:
        """Returns clean scores and worst scores by the budget's label, indexed by sample id, or None if it is lost."""
        columns = {score_column(k): budget.label for k, (budget, _) in enumerate(cell.budgets)}
        try:
            frame = self._samples(cell.record).set_index(SAMPLE_ID)
            return frame[[CLEAN_COLUMN, *columns]].rename(columns=columns)
        except (ResultsError, KeyError) as error:
            self.lost[cell.record.key] = str(error)
            return None

    def _samples(self, record: EvaluationRecord) -> pd.DataFrame:
        """Returns the sample table of a record in the order of the sample ids, read once."""
        if record.key not in self._tables:
            self._tables[record.key] = self._frames(record).sort_values(SAMPLE_ID, ignore_index=True)
        return self._tables[record.key]

    def _estimate_all(self) -> dict[tuple[str, str, str], Estimate]:
        """Returns the interval of every pooled score; graded ones share one bootstrap, which is what takes time."""
        vectors = {key: scores.mean(axis=0) for key, scores in self._matrices().items()}
        graded = {key: vector for key, vector in vectors.items() if not is_binary(vector)}
        found = {key: proportion(int(v.sum()), len(v)) for key, v in vectors.items() if key not in graded}
        return found | dict(zip(graded, mean_estimates(list(graded.values())), strict=True))

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


def _same_weights(cell: Cell, rival: Cell) -> bool:
    a, b = cell.record.checkpoint, rival.record.checkpoint
    same_model = a is not None and b is not None and a.sha256 == b.sha256
    return same_model and cell.defense.name == rival.defense.name and cell.record.key != rival.record.key


def _most_complete(entrants: Iterable[EntrantScores | None]) -> np.ndarray:
    """Returns the sample ids that most rows with the largest number of samples share."""
    found = [entrant.sample_ids for entrant in entrants if entrant is not None]
    if not found:
        return np.zeros(0, dtype=np.int64)
    longest = [ids for ids in found if len(ids) == max(map(len, found))]
    return max(longest, key=lambda ids: (sum(np.array_equal(ids, other) for other in longest), ids.tolist()))
