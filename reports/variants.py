"""Ablations: entries of the same paper side by side, with the undefended model and what has no paper of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from registry import linf
from registry.threat_model import EVERYTHING, ThreatKind
from reports.cards import Cell, DefenseFacts
from reports.leaderboard import Leaderboard, Row, Standings
from reports.pooling import Pooled, pool_estimates
from results.record import Estimate, RecordStatus

LEVELS = tuple(linf(level / 255) for level in (4, 8))
"""Budgets of the table."""
ADAPTIVE = "adaptive:"
"""Beginning of the names of the protocols that know a defense's trick."""
UNDEFENDED = "undefended"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A robust score of the table."""

    protocol: str
    score: Pooled
    upper_bound: bool


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One entry on one data set."""

    dataset: str
    """Title of the data set."""
    defense: DefenseFacts
    clean: Pooled
    robust: tuple[tuple[Measured, ...], ...]
    """What was measured at each of `LEVELS`, the ranking protocol first."""


class Variants:
    """The tables of all defenses, each read off the same walk over boards and other cells.

    Args:
        standings: All boards and the cells beside them.
    """

    def __init__(self, standings: Standings) -> None:
        self._rows: dict[tuple[str, str], list[tuple[Leaderboard, Row]]] = {}
        self._cells: dict[tuple[str, str], list[Cell]] = {}
        self._facts: dict[str, dict[str, DefenseFacts]] = {}
        self._titles: dict[str, str] = {}
        for board in standings.boards:
            for row in board.rows:
                self._note(board.dataset, row.defense)
                if board.threat_model.support == EVERYTHING and board.threat_model.kind is ThreatKind.BALL:
                    self._rows.setdefault((board.dataset.name, row.defense.name), []).append((board, row))
        for cell in standings.others:
            if cell.record.status is RecordStatus.DONE and not cell.defense.family.startswith("control-"):
                self._note(cell.dataset, cell.defense)
                self._cells.setdefault((cell.dataset.name, cell.defense.name), []).append(cell)

    def of(self, facts: DefenseFacts) -> tuple[Variant, ...]:
        """Returns the entries of a defense's paper by data set, where there is more than one; then what they meet."""
        found: list[Variant] = []
        for dataset, present in sorted(self._facts.items()):
            if facts.paper is None or facts.name not in present:
                continue
            same = [one for one in present.values() if one.paper is not None and one.paper.title == facts.paper.title]
            families = {one.family for one in same}
            plain = [one for one in present.values() if one not in same and _is_plain(one, families)]
            if len(same) > 1:
                found += [made for one in (*_by_name(same), *_by_name(plain)) if (made := self._variant(dataset, one))]
        return tuple(found)

    def _note(self, dataset, defense: DefenseFacts) -> None:
        self._facts.setdefault(dataset.name, {})[defense.name] = defense
        self._titles[dataset.name] = dataset.title

    def _variant(self, dataset: str, defense: DefenseFacts) -> Variant | None:
        """Returns the line of an entry, or None where it has no clean score."""
        rows = self._rows.get((dataset, defense.name), [])
        cells = self._cells.get((dataset, defense.name), [])
        clean = _clean_of(rows) if rows else _pooled(cells, lambda cell: cell.record.clean.get("clean"))
        if clean is None:
            return None
        adaptive = sorted({cell.protocol for cell in cells if cell.protocol.startswith(ADAPTIVE)})
        robust = []
        for budget in LEVELS:
            here = [row for board, row in rows if board.budget.label == budget.label]
            found = [
                Measured(protocol=row.cells[0].protocol, score=row.robust, upper_bound=row.upper_bound) for row in here
            ]
            for name in adaptive:
                own = [cell for cell in cells if cell.protocol == name]
                score = _pooled(own, lambda cell, label=budget.label: _robust(cell, label))
                found += [Measured(protocol=name, score=score, upper_bound=False)] if score else []
            robust.append(tuple(found))
        return Variant(dataset=self._titles[dataset], defense=defense, clean=clean, robust=tuple(robust))


def _clean_of(rows: Sequence[tuple[Leaderboard, Row]]) -> Pooled:
    """Returns the clean score of the ranked board; else of the board of most samples, which others may be cut short."""
    return max(rows, key=lambda found: (found[0].ranks, found[1].n))[1].clean


def _is_plain(facts: DefenseFacts, families: set[str]) -> bool:
    return facts.family == UNDEFENDED or (facts.paper is None and facts.family in families)


def _by_name(facts: Iterable[DefenseFacts]) -> list[DefenseFacts]:
    return sorted(facts, key=lambda one: one.name.lower())


def _robust(cell: Cell, label: str) -> Estimate | None:
    return next((result.metrics.get("robust") for budget, result in cell.budgets if budget.label == label), None)


def _pooled(cells: Sequence[Cell], score: Callable[[Cell], Estimate | None]) -> Pooled | None:
    """Returns the mean over training seeds of a score, of each seed the newest record over the most samples."""
    known = [(cell, found) for cell in cells if (found := score(cell)) is not None]
    most = max((found.n for _, found in known), default=0)
    known.sort(key=lambda pair: (pair[0].record.provenance.started_at, pair[0].record.key))
    seeds = {cell.seed: found for cell, found in known if found.n == most}
    return pool_estimates([seeds[seed] for seed in sorted(seeds)]) if seeds else None
