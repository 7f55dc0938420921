"""How the cells of one defense become a row, and rows become a ranked board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from registry import RESTORATION, Budget, Randomness
from reports.cards import Cell
from reports.costs import pool_cost
from reports.ensembles import older_ensembles
from reports.harm import changes, harm_of
from reports.leaderboard import BALANCED, FailedRow, Leaderboard, Row, SeedFlag
from reports.pooling import Pooled, pool_estimates, pool_members, pool_named, pool_scores
from reports.scores import ContestScores
from reports.selection import Contest
from reports.survivors import survivors_of
from reports.weights import trained_for
from results.adapted import SWEEP
from results.certificates import CERTIFIED, MAJORITY
from results.ranks import tie_groups
from results.record import BudgetResult, Estimate
from results.sample_design import SampleDesign
from results.verdict import CERTAINLY_BROKEN, VerdictStatus, verdict

OWN_METRICS = frozenset({"clean", "robust", "attack_success_rate", CERTIFIED, MAJORITY})
"""Metrics with columns of their own; all others are corpus metrics."""


NEVER_RANKS = "its entry says that it never ranks"
FEW_DRAWS = (
    f"an upper bound: only at the data set's ranked budget, and where {SWEEP} attacks, are more draws tried; here they "
    "might lower it"
)
DETECTOR = "a detector: rejecting an attacked image counts as right, so it has no rank among classifiers"


def build_board(contest: Contest, scores: ContestScores, budget: Budget) -> Leaderboard:
    """Returns the board of a contest at one budget.

    Args:
        contest: The cells that meet.
        scores: Their per-sample scores.
        budget: One of the contest's budgets.
    """
    rows = [_row(cells, scores, budget) for cells in contest.entrants.values() if _has(cells, budget)]
    newest = max(contest.cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key))
    at_ranked = budget.label == newest.dataset.ranked_budget.label
    rows = [
        _mark(
            _with_remarks(
                row,
                budget,
                swept=at_ranked or _is_swept(row, scores, budget),
                shorter=contest.shorter.get(row.defense.name, ()),
            )
        )
        for row in rows
    ]
    ranked = [row.defense.name for row in rows if row.status == VerdictStatus.VERIFIED and row.defense.ranks]
    vectors = {name: scores.of(name).best_known[budget.label] for name in ranked}
    return Leaderboard(
        dataset=newest.dataset,
        threat_model=newest.threat_model,
        budget=budget,
        quality=newest.record.quality,
        protocols=tuple(sorted({cell.protocol for cell in contest.cells})),
        rows=_in_order(_ranked(rows, vectors, scores.design)),
        failures=tuple(_failure(cell) for cell in contest.failures),
        n=len(scores.sample_ids) or max((row.n for row in rows), default=0),
        constant_predictor=_constant(contest, scores),
        ranked_scores=vectors,
        design=scores.design,
    )


def _constant(contest: Contest, scores: ContestScores) -> float | None:
    """Returns the constant predictor of the samples of a full row; of the most samples where every table is lost."""
    known = [cell for cell in contest.cells if cell.record.constant_predictor is not None]
    full = [cell for cell in known if scores.complete(cell.defense.name)]
    largest = max(full or known, key=lambda cell: cell.n, default=None)
    return largest.record.constant_predictor if largest else None


def _has(cells: Sequence[Cell], budget: Budget) -> bool:
    return any(_result(cell, budget) is not None for cell in cells)


def _result(cell: Cell, budget: Budget) -> BudgetResult | None:
    """Returns a cell's result at a budget, or None where it was not evaluated there or holds no robust score."""
    for own, result in cell.budgets:
        if own.label == budget.label and "robust" in result.metrics and "clean" in cell.record.clean:
            return result
    return None


def _row(cells: Sequence[Cell], scores: ContestScores, budget: Budget) -> Row:
    found = {cell.record.key: _result(cell, budget) for cell in cells}
    present = [cell for cell in cells if found[cell.record.key] is not None]
    results = [found[cell.record.key] for cell in present]
    name, label = cells[0].defense.name, budget.label
    everywhere = len(present) == len(cells)
    own = scores.of(name)
    robust = [result.metrics["robust"] for result in results]
    pooled = pool_scores(robust, scores.estimate(name, "robust", label) if everywhere else None)
    status, reasons = _status(cells, scores, budget)
    lowered_by = own.lowered_by.get(label, ()) if own else ()
    success = _pooled([result.metrics.get("attack_success_rate") for result in results])
    harm = harm_of(present, results, own if everywhere else None, label)
    metrics = changes([cell.record.clean for cell in present], [_corpus(result.metrics) for result in results])
    return Row(
        defense=max(cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key)).defense,
        seeds=tuple(cell.seed for cell in present),
        n=robust[0].n,
        clean=pool_scores(
            [cell.record.clean["clean"] for cell in present], scores.estimate(name, "clean") if everywhere else None
        ),
        robust=pooled,
        attack_success_rate=scores.success_rate(name, label) if success and lowered_by and everywhere else success,
        best_known=_best_known(name, label, scores, pooled),
        lowered_by=lowered_by,
        status=str(status),
        reasons=reasons,
        flags=tuple(SeedFlag(seed=cell.seed, flag=flag) for cell in present for flag in cell.record.flags),
        class_recall=harm.class_recall,
        confusions=harm.confusions,
        metrics=metrics | ({BALANCED: harm.balanced} if harm.balanced else {}),
        restored_clean=_restored([cell.record.clean for cell in present]),
        certified=_pooled([result.metrics.get(CERTIFIED) for result in results]),
        certified_majority=_pooled([result.metrics.get(MAJORITY) for result in results]),
        cost=pool_cost(present),
        trained_for=trained_for(present),
        claims=_claims(present[0], budget),
        members=pool_members(results),
        survivors=survivors_of(present, scores.frames(present), budget, pool_members(results)),
        cells=tuple(present),
    )


def _status(cells: Sequence[Cell], scores: ContestScores, budget: Budget) -> tuple[VerdictStatus, tuple[str, ...]]:
    """Returns the verdict on a row, or unverified where it was not scored on the samples of the full rows."""
    found = verdict([cell.record for cell in cells], budget, tried=[scores.tried(cell, budget) for cell in cells])
    name = cells[0].defense.name
    own = scores.of(name)
    if own is None:
        return VerdictStatus.UNVERIFIED, ("its per-sample scores are missing, damaged or differ between seeds",)
    if not scores.complete(name):
        why = f"evaluated on other samples than the full rows: {len(own.sample_ids)} of {len(scores.sample_ids)}"
        earlier = found.reasons if found.status is VerdictStatus.UNVERIFIED else ()
        return VerdictStatus.UNVERIFIED, (why, *earlier)
    return found.status, found.reasons


def _best_known(name: str, label: str, scores: ContestScores, robust: Pooled) -> Pooled:
    own = scores.of(name)
    estimate = scores.estimate(name, "best_known", label)
    if own is None or estimate is None or not own.lowered_by.get(label):
        return robust
    seeds = np.average(own.best_known[label], axis=1, weights=own.design.weights)
    return Pooled(estimate=estimate, seeds=tuple(seeds.tolist()))


def _pooled(estimates: Sequence[Estimate | None]) -> Pooled | None:
    known = [estimate for estimate in estimates if estimate is not None]
    return pool_estimates(known) if known else None


def _restored(clean: Sequence[Mapping[str, Estimate]]) -> dict[str, Pooled]:
    """Returns the quality of restored clean images; under attack it stands with the corpus metrics."""
    names = {spec.name for spec in RESTORATION}
    return {name: pooled for name, pooled in pool_named(clean).items() if name in names}


def _corpus(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: estimate for name, estimate in metrics.items() if name not in OWN_METRICS}


def _claims(cell: Cell, budget: Budget):
    """Returns the published claims for this data set, by the entry's or the paper's name, and this budget."""
    return tuple(
        claim
        for claim in cell.defense.claims
        if claim.speaks_of(cell.dataset) and claim.budget is not None and claim.budget.label == budget.label
    )


def _failure(cell: Cell) -> FailedRow:
    failure = cell.record.failure
    return FailedRow(
        defense=cell.defense,
        seed=cell.seed,
        kind=failure.kind if failure else "failed",
        message=failure.message if failure else "no reason was recorded",
        record=cell.record.key,
    )


def _is_swept(row: Row, scores: ContestScores, budget: Budget) -> bool:
    """Returns whether more and more draws have attacked all weights of a row, wherever that ended."""
    return all(scores.tried(cell, budget).get(SWEEP) is not None for cell in row.cells)


def _with_remarks(row: Row, budget: Budget, *, swept: bool, shorter: Sequence[Cell]) -> Row:
    """Adds what a reader should know of a row's draws, members and seeds, whatever its status.

    Args:
        row: The row.
        budget: The budget of its board.
        swept: Whether the number of draws is swept at the budget, by the ranking protocol or by one of its own.
        shorter: Cells of training seeds that are not in the row.
    """
    few_draws = row.defense.randomness != Randomness.NONE and not swept
    if few_draws and row.status == VerdictStatus.VERIFIED and row.standing.value > CERTAINLY_BROKEN:
        row = replace(row, status=str(VerdictStatus.CONTESTED))
    remarks = [FEW_DRAWS] if few_draws and not any(SWEEP in reason for reason in row.reasons) else []
    remarks += older_ensembles(row.cells, budget)
    remarks += [f"seed {cell.seed} is left out: it was evaluated on {cell.n} samples only" for cell in shorter]
    return replace(row, few_draws=few_draws, reasons=(*row.reasons, *remarks))


def _mark(row: Row) -> Row:
    """Compares a row with the constant predictor of its own samples, which are fewer where it is not complete."""
    constant = row.cells[0].record.constant_predictor
    return replace(row, below_constant=constant is not None and row.standing.estimate.high < constant)


def _ranked(rows: Sequence[Row], vectors: Mapping[str, np.ndarray], design: SampleDesign) -> list[Row]:
    """Gives a rank to every verified row of an entry that may rank, by paired tests over the same samples.

    Args:
        rows: All rows of a board.
        vectors: Scores of those that may rank, by defense.
        design: Which samples belong together, and how much each counts.
    """
    places = tie_groups(vectors, design) if vectors else {}
    judged = []
    for row in rows:
        place = places.get(row.defense.name)
        if place is not None:
            row = replace(row, rank=place.rank, tie_group=place.tie_group)
        elif row.status == VerdictStatus.VERIFIED:
            row = replace(row, reasons=(*row.reasons, DETECTOR if row.defense.family == "detection" else NEVER_RANKS))
        judged.append(row)
    return judged


def _in_order(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Returns ranked rows best first, then the others; equal ranks by falling score, then by name."""
    last = len(rows) + 1
    return tuple(sorted(rows, key=lambda row: (row.rank or last, -row.standing.value, row.defense.name.lower())))
