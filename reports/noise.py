"""What a defense that draws random numbers keeps over plain noise and adversarial training, in words and by draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry import DRAW_METRICS, Budget, Family, Randomness
from reports.cards import Cell, DefenseFacts
from reports.leaderboard import Leaderboard, Row
from reports.pooling import Pooled, pool_estimates
from reports.scores import without_errors
from results.adapted import SWEEP, late_fall

TRAINED = "Madry2018PGDAT"
"""Adversarial training as every board has it."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """Another row of the same board."""

    row: Row
    gain: float
    """How much more the defense keeps, as a fraction; both may be upper bounds."""


@dataclass(frozen=True, kw_only=True)
class UnderSweep:
    """Plain noise that met the same sweep of draws."""

    defense: DefenseFacts
    score: Pooled
    own: Pooled
    """What the defense itself kept under it."""


@dataclass(frozen=True, kw_only=True)
class SweptStep:
    """One attack of the sweep."""

    name: str
    draws: int
    """Draws of the noise behind its whole run, for each image."""
    left: tuple[float, ...]
    """Mean worst score after it, at each budget."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Scores against draws, of one training seed."""

    seed: int
    n: int
    budgets: tuple[Budget, ...]
    steps: tuple[SweptStep, ...]
    falls: tuple[float | None, ...]
    """By how much the second half of the gradients lowered the score, at each budget; None where nothing shows it."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What the page of a stochastic defense says of its draws on one board."""

    against: tuple[Against, ...]
    missing: tuple[DefenseFacts, ...]
    """Plain noise that has been evaluated on these images, and is compared neither on the board nor under a sweep."""
    views: tuple[tuple[str, Pooled | None, Pooled], ...]
    """(what, clean, under attack) for each corpus metric of several draws."""
    sweeps: tuple[Sweep, ...]
    under_sweep: tuple[UnderSweep, ...]
    """By name."""


def noise_of(board: Leaderboard, row: Row, others: Sequence[Cell]) -> Noise | None:
    """Returns what a row's draws are worth, or None where its defense draws no random numbers.

    Args:
        board: The board of the ranked budget.
        row: The defense's row on it.
        others: Cells of the board's data set under protocols that do not rank, of all defenses.
    """
    if row.defense.randomness == Randomness.NONE:
        return None
    weights = {cell.record.checkpoint.sha256 for cell in row.cells if cell.record.checkpoint}
    swept = [cell for cell in others if cell.protocol == SWEEP and without_errors(cell)]
    own = [cell for cell in swept if cell.record.checkpoint and cell.record.checkpoint.sha256 in weights]
    plain = {cell.defense.name: cell.defense for cell in others if is_plain_noise(cell.defense)}
    present = {other.defense.name for other in board.rows}
    read = [(spec.title, row.metrics[spec.name]) for spec in DRAW_METRICS if spec.name in row.metrics]
    under_sweep = _under_sweep(own, swept, plain, board.budget)
    compared = present | {found.defense.name for found in under_sweep}
    return Noise(
        against=tuple(
            Against(row=other, gain=row.standing.value - other.standing.value)
            for other in board.rows
            if other is not row and (other.defense.name == TRAINED or is_plain_noise(other.defense))
        ),
        missing=tuple(plain[name] for name in sorted(plain) if name not in compared),
        views=tuple((title, change.clean, change.attacked) for title, change in read),
        sweeps=tuple(sorted((_sweep(cell) for cell in own), key=lambda sweep: sweep.seed)),
        under_sweep=under_sweep,
    )


def _under_sweep(
    own: Sequence[Cell], swept: Sequence[Cell], plain: Mapping[str, DefenseFacts], budget: Budget
) -> tuple[UnderSweep, ...]:
    """Returns what plain noise kept under the sweep that the defense met, too, at one budget; the mean over seeds."""
    mine = _kept(own, budget)
    found = []
    for name, facts in sorted(plain.items()):
        theirs = _kept([cell for cell in swept if cell.defense.name == name and cell not in own], budget)
        if mine and theirs:
            found.append(UnderSweep(defense=facts, score=theirs, own=mine))
    return tuple(found)


def _kept(cells: Sequence[Cell], budget: Budget) -> Pooled | None:
    """Returns the robust score of cells at a budget, the mean over training seeds; None where there is none."""
    scores = {
        cell.seed: result.metrics["robust"]
        for cell in cells
        for own, result in cell.budgets
        if own.label == budget.label and "robust" in result.metrics
    }
    return pool_estimates([scores[seed] for seed in sorted(scores)]) if scores else None


def is_plain_noise(facts: DefenseFacts) -> bool:
    """Returns whether a defense is noise as such: it draws, has no paper, and is no control of the benchmark's own."""
    drawn = facts.paper is None and facts.randomness != Randomness.NONE
    return drawn and facts.family not in (Family.CONTROL_BROKEN, Family.CONTROL_HONEST)


def _sweep(cell: Cell) -> Sweep:
    found = [(budget, result) for budget, result in cell.budgets if result.members]
    steps = []
    for members in zip(*(result.members for _, result in found), strict=False):
        options = members[0].card.get("options", {})
        draws = int(options.get("steps", 0)) * int(options.get("eot_samples", 1))
        left = tuple(member.robust_after for member in members)
        steps.append(SweptStep(name=members[0].name, draws=draws, left=left))
    return Sweep(
        seed=cell.seed,
        n=cell.n,
        budgets=tuple(budget for budget, _ in found),
        steps=tuple(steps),
        falls=tuple(None if math.isinf(fall) else fall for fall in (late_fall(result) for _, result in found)),
    )
