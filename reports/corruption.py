"""Boards of corruptions: mean scores under changes that nobody chose, and how they agree with the adversarial ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from registry import ThreatKind
from reports.cards import Cell, DatasetFacts, DefenseFacts
from reports.controls import is_control
from reports.corrupted_scores import CorruptedScore, averaged, corrupted_score
from reports.leaderboard import VERIFIED, Leaderboard, Row, Standings
from reports.pooling import Pooled, pool_estimates
from reports.rank_correlation import Correlation, correlate
from results.record import BudgetResult, RecordStatus

PREFIX = "corruption:"


@dataclass(frozen=True, kw_only=True)
class CorruptionRow:
    """One defense under every corruption: its training seeds pooled."""

    defense: DefenseFacts
    seeds: tuple[int, ...]
    """Training seeds, those that every one of its corruptions was evaluated on."""
    n: int
    """Number of test samples, the fewest of its records."""
    clean: Pooled
    scores: dict[str, dict[str, CorruptedScore]]
    """By corruption, then by the severity's label."""
    average: CorruptedScore | None
    """Mean over all corruptions and severities of the board; None where one is missing."""
    ranked: Row | None
    """Its row at the data set's ranked budget, which may hold more training seeds."""

    @property
    def mean(self) -> float | None:
        """Mean score over all corruptions and severities of the board; None where one is missing."""
        return self.average.plain.value if self.average else None

    @property
    def balanced(self) -> float | None:
        """Balanced accuracy over the same, the mean of the class recalls; None where there are no classes."""
        return self.average.balanced.value if self.average and self.average.recalls else None

    @property
    def robust(self) -> float | None:
        """The score at the data set's ranked budget, mean over the training seeds of this row alone."""
        return self._at_ranked(self.ranked.standing) if self.ranked else None

    @property
    def balanced_robust(self) -> float | None:
        """The balanced accuracy at the data set's ranked budget, of the same training seeds."""
        found = self.ranked.balanced if self.ranked else None
        return self._at_ranked(found.attacked) if found else None

    def _at_ranked(self, pooled: Pooled) -> float | None:
        of_seed = dict(zip(self.ranked.seeds, pooled.seeds, strict=True))
        return fmean(of_seed[seed] for seed in self.seeds) if set(self.seeds) <= set(of_seed) else None

    def average_of(self, name: str) -> CorruptedScore | None:
        """Returns the mean over the severities of one corruption, or None where it was not evaluated."""
        found = self.scores.get(name)
        return averaged(list(found.values())) if found else None


@dataclass(frozen=True, kw_only=True)
class CorruptionBoard:
    """All defenses of a data set under corruptions; it orders rows by their balanced mean and gives no ranks.

    Without classes there is none, and the plain mean orders them.
    """

    dataset: DatasetFacts
    quality: str
    """Name of the score, e.g. "accuracy"."""
    names: tuple[str, ...]
    """Corruptions, sorted."""
    severities: tuple[str, ...]
    """Labels, ascending."""
    rows: tuple[CorruptionRow, ...]
    """Highest balanced mean first, then those without one by their mean, then those without a mean by name."""
    n: int
    """Number of test samples of a full row."""
    constant_predictor: float | None
    """Score of always answering the majority class on them; classification only."""
    correlation: Correlation | None
    """Of the corruption mean with the score at the ranked budget, over verified rows; None where they are too few."""
    balanced_correlation: Correlation | None
    """Of the balanced corruption mean with the balanced accuracy at the ranked budget, over the same rows."""

    @property
    def chance(self) -> float | None:
        """Balanced accuracy of a constant answer, 1 / classes; None where there are no classes."""
        cells = [score for row in self.rows for levels in row.scores.values() for score in levels.values()]
        classes = {name for score in cells for name in score.recalls}
        return 1 / len(classes) if classes else None


def corruption_boards(standings: Standings) -> tuple[CorruptionBoard, ...]:
    """Returns the corruption board of every data set that has records of corruptions, by task and data set."""
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in standings.others:
        done = cell.threat_model.kind is ThreatKind.CORRUPTION and cell.record.status is RecordStatus.DONE
        if done and not is_control(cell):
            groups[cell.dataset.task, cell.dataset.name].append(cell)
    return tuple(_board(groups[key], standings.boards) for key in sorted(groups))


def _board(cells: Sequence[Cell], boards: Iterable[Leaderboard]) -> CorruptionBoard:
    newest = max(cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key))
    front = [board for board in boards if board.dataset.name == newest.dataset.name and board.ranks]
    ranked = {row.defense.name: row for board in front for row in board.rows}
    grouped = any(board.design.groups is not None for board in front)
    by_defense: dict[str, list[Cell]] = defaultdict(list)
    cells = [cell for cell in cells if _of_the_row(cell, ranked.get(cell.defense.name))]
    for cell in cells:
        by_defense[cell.defense.name].append(cell)
    budgets = {budget.label: budget.size for cell in cells for budget, _ in cell.budgets}
    names = tuple(sorted({cell.protocol.removeprefix(PREFIX) for cell in cells}))
    severities = tuple(sorted(budgets, key=budgets.get))
    rows = [_row(found, ranked.get(name), names, severities, grouped) for name, found in sorted(by_defense.items())]
    rows.sort(key=_place)
    largest = max(cells, key=lambda cell: (cell.record.clean["clean"].n, cell.record.key))
    plain, balanced = _correlations(rows)
    return CorruptionBoard(
        dataset=newest.dataset,
        quality=newest.record.quality,
        names=names,
        severities=severities,
        rows=tuple(rows),
        n=largest.record.clean["clean"].n,
        constant_predictor=largest.record.constant_predictor,
        correlation=plain,
        balanced_correlation=balanced,
    )


def _place(row: CorruptionRow) -> tuple[object, ...]:
    """Returns what rows are sorted by, ascending; by the plain mean a constant answer would do well."""
    return row.balanced is None, -(row.balanced or 0), row.mean is None, -(row.mean or 0), row.defense.name.lower()


def _of_the_row(cell: Cell, ranked: Row | None) -> bool:
    """Returns whether a record is of the weights of its defense's ranked row, where there is one."""
    return ranked is None or _weights(cell) in {_weights(own) for own in ranked.cells}


def _row(
    cells: Sequence[Cell], ranked: Row | None, names: Sequence[str], severities: Sequence[str], grouped: bool
) -> CorruptionRow:
    chosen = _of_common_seeds(_one_per_seed(cells))
    seeds = tuple(sorted({cell.seed for cell in chosen}))
    by_name: dict[str, list[Cell]] = defaultdict(list)
    for cell in chosen:
        by_name[cell.protocol.removeprefix(PREFIX)].append(cell)
    scores = {name: _scores(by_name[name], severities, grouped) for name in names if name in by_name}
    values = [scores.get(name, {}).get(label) for name in names for label in severities]
    n = min(cell.record.clean["clean"].n for cell in chosen)
    same = all(cell.record.clean["clean"].n == n for cell in chosen) and len(chosen) == len(seeds) * len(scores)
    clean = {cell.seed: cell.record.clean["clean"] for cell in chosen}
    return CorruptionRow(
        defense=max(chosen, key=lambda cell: (cell.record.provenance.started_at, cell.record.key)).defense,
        seeds=seeds,
        n=n,
        clean=pool_estimates([clean[seed] for seed in sorted(clean)]),
        scores=scores,
        average=averaged(values) if same and None not in values else None,
        ranked=ranked,
    )


def _scores(cells: Sequence[Cell], severities: Sequence[str], grouped: bool) -> dict[str, CorruptedScore]:
    """Returns the scores of one corruption by the severity's label, ascending."""
    measured: dict[str, list[BudgetResult]] = defaultdict(list)
    for cell in cells:
        for budget, result in cell.budgets:
            measured[budget.label].append(result)
    constant = cells[0].record.constant_predictor
    return {label: corrupted_score(measured[label], constant, grouped) for label in severities if label in measured}


def _one_per_seed(cells: Iterable[Cell]) -> list[Cell]:
    """Returns one cell of each corruption and training seed: the one of most samples, then the latest."""
    best: dict[tuple[str, int], Cell] = {}

    def preference(cell: Cell) -> tuple[object, ...]:
        return cell.record.clean["clean"].n, cell.record.provenance.started_at, cell.record.key

    for cell in cells:
        key = (cell.protocol, cell.seed)
        if key not in best or preference(cell) > preference(best[key]):
            best[key] = cell
    return [best[key] for key in sorted(best)]


def _of_common_seeds(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Returns the cells of the training seeds that every corruption was evaluated on; all where there is none."""
    seeds_of: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        seeds_of[cell.protocol].add(cell.seed)
    shared = set.intersection(*seeds_of.values())
    return [cell for cell in cells if cell.seed in shared] if shared else cells


def _correlations(rows: Iterable[CorruptionRow]) -> tuple[Correlation | None, Correlation | None]:
    """Returns how corruption means agree with ranked robust scores: plain with plain, balanced with balanced."""
    voters = [
        row
        for row in rows
        if None not in (row.average, row.robust) and row.ranked.status == VERIFIED and row.n == row.ranked.n
    ]
    balanced = [(row.balanced, row.balanced_robust) for row in voters]
    return (
        correlate((row.mean, row.robust) for row in voters),
        correlate(pair for pair in balanced if None not in pair),
    )


def _weights(cell: Cell) -> str | None:
    return cell.record.checkpoint.sha256 if cell.record.checkpoint else None
