"""Which record stands for which row: current revisions, one record per defense and seed, the rest set aside."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from registry import TWIN, Budget
from reports.cards import Cell
from results.record import RecordStatus

SHARED_REVISIONS = ("dataset", "task", "engine")
"""Revisions that all rows of a data set must have in common."""
BASE = "base:"
"""Beginning of the names of the revisions of wrapped defenses."""


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A record that is on no board, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The cells that meet on the boards of one data set and threat model, whatever the budget."""

    threat: tuple[str, ...]
    entrants: dict[str, tuple[Cell, ...]]
    """Cells by defense, ascending in training seed."""
    rivals: tuple[Cell, ...]
    """Other cells of the same data and threat model, which may lower a best-known score."""
    failures: tuple[Cell, ...]
    """Ranking cells that failed and that no finished cell replaces."""
    shorter: dict[str, tuple[Cell, ...]] = field(default_factory=dict)
    """Cells by defense that were evaluated on fewer samples than another training seed of it: on no board."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All entrants, by defense and seed."""
        return tuple(cell for name in sorted(self.entrants) for cell in self.entrants[name])

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every budget that an entrant was evaluated at, ascending."""
        found = {budget.label: budget for cell in self.cells for budget, _ in cell.budgets}
        return tuple(sorted(found.values(), key=lambda budget: (budget.size, budget.values)))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The contests of one data set, and what is left out of them."""

    contests: tuple[Contest, ...]
    others: tuple[Cell, ...]
    """Finished and failed cells that rank nowhere: clean, paper-style, corruption and reference protocols."""
    set_aside: tuple[SetAside, ...]


def select(cells: Sequence[Cell]) -> Selection:
    """Returns the contests of one data set.

    Args:
        cells: All cells of the data set, in any order; the result does not depend on it.
    """
    aside: list[SetAside] = []
    cells = sorted(cells, key=lambda cell: cell.record.key)
    cells = _keep(cells, aside, lambda cell: cell.record.split == "test", "its split is not test")
    cells = _same_data(cells, aside)
    cells = _current(cells, aside)
    done = [cell for cell in cells if cell.record.status is RecordStatus.DONE]
    failed = [cell for cell in cells if cell.record.status is not RecordStatus.DONE]
    contests = []
    for threat in sorted({cell.threat for cell in cells if cell.ranks}):
        contests.append(_contest(threat, done, failed, aside))
    others = [cell for cell in cells if not cell.ranks]
    return Selection(contests=tuple(contests), others=tuple(others), set_aside=tuple(aside))


def _contest(threat: tuple[str, ...], done: list[Cell], failed: list[Cell], aside: list[SetAside]) -> Contest:
    inside = [cell for cell in done if cell.threat == threat]
    entrants, rivals = _one_per_seed([cell for cell in inside if cell.ranks])
    entrants, shorter = _of_one_size(entrants, aside)
    rivals += [cell for cell in inside if not cell.ranks]
    chosen = [cell for cells in (*entrants.values(), *shorter.values()) for cell in cells]
    checkpoints = {cell.record.checkpoint.sha256 for cell in chosen}
    for cell in rivals:
        if cell.ranks and cell.record.checkpoint.sha256 not in checkpoints:
            aside.append(SetAside(key=cell.record.key, reason="a later record holds other weights of the same seed"))
    finished = {(name, cell.seed) for name, cells in entrants.items() for cell in cells}
    failures = [cell for cell in failed if cell.threat == threat and cell.ranks and not _replaced(cell, finished)]
    return Contest(threat=threat, entrants=entrants, rivals=tuple(rivals), failures=tuple(failures), shorter=shorter)


def _replaced(cell: Cell, finished: set[tuple[str, int]]) -> bool:
    """A failed cell counts as replaced by a finished one of its seed, or of any seed where it never got that far."""
    if cell.seed >= 0:
        return (cell.defense.name, cell.seed) in finished
    return any(name == cell.defense.name for name, _ in finished)


def _one_per_seed(cells: Iterable[Cell]) -> tuple[dict[str, tuple[Cell, ...]], list[Cell]]:
    """Splits cells into the best one of each defense and training seed, and the rest."""
    groups: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.defense.name, cell.seed].append(cell)
    entrants: dict[str, list[Cell]] = defaultdict(list)
    rest: list[Cell] = []
    for (name, _), group in sorted(groups.items()):
        first, *others = sorted(group, key=_preference, reverse=True)
        entrants[name].append(first)
        rest += others
    return {name: tuple(found) for name, found in entrants.items()}, rest


def _of_one_size(
    entrants: dict[str, tuple[Cell, ...]], aside: list[SetAside]
) -> tuple[dict[str, tuple[Cell, ...]], dict[str, tuple[Cell, ...]]]:
    """Splits the seeds of each defense into those of the most samples and the others: a mean over both is of neither.

    A seed without a sample table is kept with the first: its row is unverified.
    """
    kept: dict[str, tuple[Cell, ...]] = {}
    shorter: dict[str, tuple[Cell, ...]] = {}
    for name, cells in entrants.items():
        most = max(cell.n for cell in cells)
        kept[name] = tuple(cell for cell in cells if cell.n in (0, most))
        if fewer := tuple(cell for cell in cells if cell.n not in (0, most)):
            shorter[name] = fewer
        for cell in shorter.get(name, ()):
            reason = f"it holds {cell.n} samples, and another training seed of {name} holds {most}"
            aside.append(SetAside(key=cell.record.key, reason=reason))
    return kept, shorter


def _preference(cell: Cell) -> tuple[object, ...]:
    """The larger, the rather a cell stands for its row: protocol, samples, lower attack seed, later start."""
    record = cell.record
    return (cell.protocol == "standard", cell.n, -record.attack_seed, record.provenance.started_at, record.key)


def _keep(cells: list[Cell], aside: list[SetAside], wanted, reason: str) -> list[Cell]:
    aside += [SetAside(key=cell.record.key, reason=reason) for cell in cells if not wanted(cell)]
    return [cell for cell in cells if wanted(cell)]


def _same_data(cells: list[Cell], aside: list[SetAside]) -> list[Cell]:
    """Keeps the cells whose data checksum most cells share."""
    if not cells:
        return cells
    counts = Counter(cell.record.data_sha256 for cell in cells)
    most = max(counts, key=lambda checksum: (counts[checksum], checksum))
    return _keep(cells, aside, lambda cell: cell.record.data_sha256 == most, "it was evaluated on other data")


def _current(cells: list[Cell], aside: list[SetAside]) -> list[Cell]:
    """Keeps the cells whose revisions no other cell exceeds; a raised revision drops older numbers from the boards."""
    newest: dict[tuple[str, str], int] = defaultdict(int)
    for cell in cells:
        for scope, revision in _revisions(cell):
            newest[scope] = max(newest[scope], revision)
    kept = []
    for cell in cells:
        old = [(scope, revision) for scope, revision in _revisions(cell) if revision < newest[scope]]
        if old:
            (kind, name), revision = old[0]
            reason = f"revision {revision} of {kind} {name} is older than {newest[kind, name]}"
            aside.append(SetAside(key=cell.record.key, reason=reason.replace("  ", " ")))
        else:
            kept.append(cell)
    return kept


def _revisions(cell: Cell) -> list[tuple[tuple[str, str], int]]:
    """Returns what a record was made with and its revision; bases and the twin are defenses like any other."""
    found = cell.record.revisions
    shared = [((kind, ""), found[kind]) for kind in SHARED_REVISIONS if kind in found]
    defenses = [(name.removeprefix(BASE), revision) for name, revision in found.items() if name.startswith(BASE)]
    defenses += [(TWIN, found["twin"])] if "twin" in found else []
    defenses.append((cell.defense.name, found.get("defense", 0)))
    named = [(("defense", name), revision) for name, revision in defenses]
    return [*shared, *named, (("protocol", cell.protocol), found.get("protocol", 0))]
