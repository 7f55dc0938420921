"""From a folder of records to all boards: the one walk over the store that everything else is made from."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pandas as pd

from registry.errors import DamagedRecordError
from reports.cards import Cell, read_cell
from reports.certificates import check_contest
from reports.controls import examine, is_control, without_controls
from reports.exam import Exam
from reports.leaderboard import Leaderboard, Standings
from reports.rows import build_board
from reports.scores import ContestScores
from reports.selection import SetAside, select
from results.record import EvaluationRecord


class Records(Protocol):
    """What a report needs of `results.store.RecordStore`."""

    folder: Path
    damaged: list[tuple[Path, str]]

    def records(self) -> Iterator[EvaluationRecord]:
        """Yields every readable record and lists the others in `damaged`."""

    def samples(self, record: EvaluationRecord) -> pd.DataFrame:
        """Returns the sample table of a record."""


def build_standings(store: Records) -> Standings:
    """Returns all boards of a store; a record that cannot be read costs its own line only.

    Args:
        store: The records; read once.

    Raises:
        ViolatedCertificateError: A score is lower than a certificate allows.
    """
    cells, unreadable = _read_cells(store)
    with _long_lived_objects():
        return _standings(store, cells, unreadable)


def _standings(store: Records, cells: list[Cell], unreadable: list[tuple[str, str]]) -> Standings:
    by_dataset: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_dataset[cell.dataset.name].append(cell)
    boards: list[Leaderboard] = []
    others: list[Cell] = []
    failed: list[Cell] = []
    aside: list[SetAside] = []
    exams: list[Exam] = []
    for name in sorted(by_dataset):
        selection = select(by_dataset[name])
        others += selection.others
        aside += selection.set_aside
        for everybody in selection.contests:
            failed += everybody.failures
            others += [cell for cell in everybody.cells if is_control(cell)]
            exam = examine(everybody, store.samples)
            exams += [exam] if exam else []
            contest = without_controls(everybody)
            if not contest.entrants:
                continue
            scores = ContestScores(contest, store.samples)
            check_contest(contest, scores, store.samples)
            boards += [build_board(contest, scores, budget) for budget in contest.budgets]
            unreadable += [(f"sample table of {key}", reason) for key, reason in sorted(scores.lost.items())]
    newest = max(cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key), default=None)
    return Standings(
        boards=tuple(sorted(boards, key=lambda board: (board.dataset.task, board.dataset.name))),
        others=tuple(others),
        exams=tuple(exams),
        failed=tuple(failed),
        set_aside=tuple(aside),
        unreadable=tuple(_without_folder(store.folder, unreadable)),
        n_records=len(cells),
        commit=newest.record.provenance.commit if newest else None,
        dirty=newest.record.provenance.dirty if newest else False,
    )


@contextmanager
def _long_lived_objects() -> Iterator[None]:
    """Keeps the garbage collector from walking the records again and again.

    statsmodels collects at every Holm adjustment, thus on every board: 0.7 s each with 2,000 records in memory.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _read_cells(store: Records) -> tuple[list[Cell], list[tuple[str, str]]]:
    cells: list[Cell] = []
    strange: list[tuple[str, str]] = []
    for record in store.records():
        try:
            cells.append(read_cell(record))
        except DamagedRecordError as error:
            strange.append((record.key, str(error)))
    damaged = [(path.relative_to(store.folder).as_posix(), reason) for path, reason in store.damaged]
    return cells, damaged + strange


def _without_folder(folder: Path, unreadable: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pages must not depend on where the records lie, so their folder's path is cut from the reasons."""
    return sorted((name, reason.replace(f"{folder}/", "")) for name, reason in unreadable)
