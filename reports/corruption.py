"""Boards of corruptions: mean scores under changes that nobody chose, and how they agree with the adversarial ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh
from statistics import NormalDist, fmean

from scipy.stats import kendalltau, spearmanr

from registry import ThreatKind
from reports.cards import Cell, DatasetFacts, DefenseFacts
from reports.controls import is_control
from reports.leaderboard import VERIFIED, Leaderboard, Row, Standings
from reports.pooling import Pooled, pool_estimates
from results.record import RecordStatus
from results.statistics import ALPHA

PREFIX = "corruption:"
DIGITS = 8
"""Decimals of a score that tell two rows apart: sums of rounded scores differ in the last ones of a float."""
FEWEST_ROWS = 3
"""Rows from which an order can be compared with another."""
ENOUGH_ROWS = 10
"""Rows from which a rank correlation has an interval; of fewer it says little."""


@dataclass(frozen=True, kw_only=True)
class CorruptionRow:
    """One defense under every corruption: its training seeds pooled."""

    defense: DefenseFacts
    seeds: tuple[int, ...]
    """Training seeds, those that every one of its corruptions was evaluated on."""
    n: int
    """Number of test samples, the fewest of its records."""
    clean: Pooled
    scores: dict[str, dict[str, Pooled]]
    """Mean score by corruption, then by the severity's label."""
    mean: float | None
    """Mean over all corruptions and severities of the board; None where one is missing."""
    ranked: Row | None
    """Its row at the data set's ranked budget, which may hold more training seeds."""

    @property
    def robust(self) -> float | None:
        """The score at the data set's ranked budget, mean over the training seeds of this row alone."""
        of_seed = dict(zip(self.ranked.seeds, self.ranked.standing.seeds, strict=True)) if self.ranked else {}
        return fmean(of_seed[seed] for seed in self.seeds) if set(self.seeds) <= set(of_seed) else None

    def mean_of(self, name: str) -> float | None:
        """Returns the mean over the severities of one corruption, or None where it was not evaluated."""
        found = self.scores.get(name)
        return fmean(pooled.value for pooled in found.values()) if found else None


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Whether two scores put the same rows in the same order; 1 the same, -1 the opposite."""

    spearman: float
    """Spearman's rho."""
    interval: tuple[float, float] | None
    """95 % interval of Spearman's rho were rows drawn at random; None where they are fewer than 10 or rho is +-1."""
    kendall: float
    """Kendall's tau-b."""
    n: int
    """Number of rows."""


@dataclass(frozen=True, kw_only=True)
class CorruptionBoard:
    """All defenses of a data set under corruptions; it orders rows by their mean and gives no ranks."""

    dataset: DatasetFacts
    quality: str
    """Name of the score, e.g. "accuracy"."""
    names: tuple[str, ...]
    """Corruptions, sorted."""
    severities: tuple[str, ...]
    """Labels, ascending."""
    rows: tuple[CorruptionRow, ...]
    """Highest mean first, then those without one by name."""
    correlation: Correlation | None
    """Of the corruption mean with the score at the ranked budget, over verified rows; None where they are too few."""


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
    by_defense: dict[str, list[Cell]] = defaultdict(list)
    cells = [cell for cell in cells if _of_the_row(cell, ranked.get(cell.defense.name))]
    for cell in cells:
        by_defense[cell.defense.name].append(cell)
    budgets = {budget.label: budget.size for cell in cells for budget, _ in cell.budgets}
    names = tuple(sorted({cell.protocol.removeprefix(PREFIX) for cell in cells}))
    severities = tuple(sorted(budgets, key=budgets.get))
    rows = [_row(found, ranked.get(name), names, severities) for name, found in sorted(by_defense.items())]
    rows.sort(key=lambda row: (row.mean is None, -(row.mean or 0), row.defense.name.lower()))
    return CorruptionBoard(
        dataset=newest.dataset,
        quality=newest.record.quality,
        names=names,
        severities=severities,
        rows=tuple(rows),
        correlation=_correlation(rows),
    )


def _of_the_row(cell: Cell, ranked: Row | None) -> bool:
    """Returns whether a record is of the weights of its defense's ranked row, where there is one."""
    return ranked is None or _weights(cell) in {_weights(own) for own in ranked.cells}


def _row(cells: Sequence[Cell], ranked: Row | None, names: Sequence[str], severities: Sequence[str]) -> CorruptionRow:
    chosen = _of_common_seeds(_one_per_seed(cells))
    seeds = tuple(sorted({cell.seed for cell in chosen}))
    scores: dict[str, dict[str, Pooled]] = {}
    for name in names:
        found = [cell for cell in chosen if cell.protocol.removeprefix(PREFIX) == name]
        measured: dict[str, list] = defaultdict(list)
        for cell in found:
            for budget, result in cell.budgets:
                measured[budget.label].append(result.metrics["robust"])
        if measured:
            scores[name] = {label: pool_estimates(measured[label]) for label in severities if label in measured}
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
        mean=fmean(value.value for value in values) if same and None not in values else None,
        ranked=ranked,
    )


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


def _correlation(rows: Iterable[CorruptionRow]) -> Correlation | None:
    pairs = [
        (round(row.mean, DIGITS), round(row.robust, DIGITS))
        for row in rows
        if None not in (row.mean, row.robust) and row.ranked.status == VERIFIED and row.n == row.ranked.n
    ]
    if len(pairs) < FEWEST_ROWS or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    corrupted, robust = zip(*pairs, strict=True)
    rho, tau = float(spearmanr(corrupted, robust).statistic), float(kendalltau(corrupted, robust).statistic)
    if not isfinite(rho + tau):
        return None
    return Correlation(spearman=rho, interval=spearman_interval(rho, len(pairs)), kendall=tau, n=len(pairs))


def spearman_interval(rho: float, n: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a rank correlation of n pairs by Fisher's z, or None where it would say nothing.

    Its standard error is that of Bonett and Wright (2000), sqrt((1 + rho^2 / 2) / (n - 3)).
    """
    if n < ENOUGH_ROWS or abs(rho) > 1 - 1e-9:
        return None
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * sqrt((1 + rho**2 / 2) / (n - 3))
    return tanh(atanh(rho) - half), tanh(atanh(rho) + half)


def _weights(cell: Cell) -> str | None:
    return cell.record.checkpoint.sha256 if cell.record.checkpoint else None
