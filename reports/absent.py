"""Who is missing on a board, and the command that produces the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.cards import Cell, DefenseFacts
from reports.leaderboard import Leaderboard
from reports.pooling import Pooled, pool_estimates
from results.record import RecordStatus

CLEAN = "clean"
"""Protocol of unchanged inputs, and the metric that it gives."""
FULL_SEEDS = 3
"""Training seeds of a row that tells a method from its luck."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A defense without a row."""

    defense: DefenseFacts
    clean: Pooled
    """Its score on unchanged inputs, as far as it was evaluated."""


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """What a board lacks."""

    absent: tuple[Absent, ...]
    """By name: defenses that may rank and have a clean score on this data set, yet no row."""
    produce: str
    """The command that produces their rows; empty where none is absent."""
    few_seeds: tuple[str, ...]
    """Trained defenses whose rows are of fewer than three training seeds, by name."""
    repeat: str
    """The command that produces their other seeds; empty where there are none."""


def unmeasured(board: Leaderboard, others: Sequence[Cell]) -> Unmeasured:
    """Returns what a board lacks, as far as records tell.

    Args:
        board: The board.
        others: Cells under protocols that do not rank, of any data set.
    """
    present = {row.defense.name for row in board.rows} | {failed.defense.name for failed in board.failures}
    clean: dict[str, list[Cell]] = {}
    for cell in others:
        if _of(cell, board) and cell.defense.name not in present:
            clean.setdefault(cell.defense.name, []).append(cell)
    absent = tuple(
        Absent(defense=cells[0].defense, clean=pool_estimates([cell.record.clean[CLEAN] for cell in cells]))
        for _, cells in sorted(clean.items())
    )
    few = tuple(sorted(row.defense.name for row in board.rows if row.defense.recipe and len(row.cells) < FULL_SEEDS))
    return Unmeasured(
        absent=absent,
        produce=_command(board, [found.defense.name for found in absent], "0"),
        few_seeds=few,
        repeat=_command(board, few, ",".join(map(str, range(FULL_SEEDS)))),
    )


def _of(cell: Cell, board: Leaderboard) -> bool:
    """Returns whether a cell is a finished clean score, on the board's data set, of a defense that may rank."""
    done = cell.record.status is RecordStatus.DONE and CLEAN in cell.record.clean
    same = cell.dataset.name == board.dataset.name and cell.protocol == CLEAN
    return done and same and cell.defense.ranks and not cell.defense.family.startswith("control-")


def _command(board: Leaderboard, defenses: Sequence[str], seeds: str) -> str:
    """Returns the command that evaluates defenses under the protocol of a board."""
    if not defenses:
        return ""
    chosen = " ".join(f"--defense {name}" for name in defenses)
    protocol = " ".join(f"--protocol {name}" for name in board.protocols)
    samples = f"--n {board.n} " if board.n < board.dataset.n_test else ""  # rows of one board meet on the same samples
    where = f"--dataset {board.dataset.name} {protocol} {samples}"
    return f"python -m benchmark run --suite full {where}--seeds {seeds} {chosen}"
