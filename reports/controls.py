"""The benchmark's own exam: what it says of defenses whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

import numpy as np

from registry import Budget, KnownBy
from registry.threat_model import EVERYTHING
from reports.cards import Cell, DatasetFacts, DefenseFacts
from reports.certificates import check_contest
from reports.scores import ContestScores, EntrantScores
from reports.selection import Contest
from results.best_known import ReadSamples
from results.certificates import CERTIFIED
from results.verdict import Verdict, VerdictStatus, verdict

TOLERANCE = 0.03
"""How far above its truth a verified number may lie, a fraction."""


class Outcome(StrEnum):
    """How the benchmark did on one control."""

    CAUGHT = "caught"
    """Broken, and said to be: at most 3 points above its truth, or not verified because of a flag."""
    MISSED = "missed"
    """Broken, and verified at a number that is too high."""
    ACCEPTED = "accepted"
    """Honest, verified, and not above its truth."""
    FALSE_ALARM = "false alarm"
    """Honest, and doubted because of a flag."""
    TOO_HIGH = "too high"
    """Honest, and verified at a number that is too high: the attacks are too weak."""
    INCOMPLETE = "incomplete"
    """Not evaluated to the end."""


@dataclass(frozen=True, kw_only=True)
class ControlRow:
    """One control on one data set at its ranked budget, training seeds pooled."""

    dataset: DatasetFacts
    defense: DefenseFacts
    budget: Budget
    seeds: tuple[int, ...] = ()
    n: int = 0
    clean: float | None = None
    truth: float | None = None
    """True robust score, or the lowest that any attack reached."""
    measured: float | None = None
    """Robust score of the ranking protocol."""
    flags: tuple[str, ...] = ()
    """Names of the red flags."""
    status: str = "failed"
    reasons: tuple[str, ...] = ()
    outcome: Outcome = Outcome.INCOMPLETE

    @property
    def broken(self) -> bool:
        """Whether it is one that must be caught."""
        return self.defense.family == "control-broken"


@dataclass(frozen=True, kw_only=True)
class Exam:
    """All controls on one data set."""

    dataset: DatasetFacts
    rows: tuple[ControlRow, ...]
    """Broken ones first, by name."""

    def count(self, *outcomes: Outcome) -> int:
        """Returns how many controls ended so."""
        return sum(row.outcome in outcomes for row in self.rows)

    @property
    def n_broken(self) -> int:
        """Controls that must be caught."""
        return sum(row.broken for row in self.rows)

    @property
    def n_honest(self) -> int:
        """Controls that must be accepted."""
        return len(self.rows) - self.n_broken

    @property
    def in_words(self) -> str:
        """The benchmark's own score, for people."""
        text = (
            f"{self.count(Outcome.CAUGHT)} of {self.n_broken} broken controls caught, "
            f"{self.count(Outcome.FALSE_ALARM)} false alarms on {self.n_honest} honest ones"
        )
        weak, undone = self.count(Outcome.TOO_HIGH), self.count(Outcome.INCOMPLETE)
        text += f", {weak} honest ones measured too high" if weak else ""
        return text + (f", {undone} not evaluated to the end" if undone else "")


def is_control(cell: Cell) -> bool:
    """Returns whether a cell's defense exists to test the benchmark; it stays off the boards."""
    return cell.defense.family.startswith("control-")


def without_controls(contest: Contest) -> Contest:
    """Returns the contest of the defenses that meet on boards."""
    kept = {name: cells for name, cells in contest.entrants.items() if not is_control(cells[0])}
    rivals, failures = (tuple(c for c in cells if not is_control(c)) for cells in (contest.rivals, contest.failures))
    return replace(contest, entrants=kept, rivals=rivals, failures=failures)


def examine(contest: Contest, samples_of: ReadSamples) -> Exam | None:
    """Returns how the benchmark did on the controls of a contest, or None where it holds none of them.

    Args:
        contest: The cells that meet on a data set, controls among them.
        samples_of: Reads a record's sample table.

    Raises:
        ViolatedCertificateError: A score is lower than a certificate allows.
    """
    controls = [cells for cells in contest.entrants.values() if cells[0].defense.truth is not None]
    failed = [cell for cell in contest.failures if cell.defense.truth is not None]
    if not any(is_control(cell) for cell in (*(cells[0] for cells in controls), *failed)):
        return None
    cell = (controls[0] if controls else failed)[0]
    budget = cell.dataset.ranked_budget
    if cell.threat_model.support != EVERYTHING or cell.threat_model.norm is not budget.norm:
        return None
    scores = ContestScores(contest, samples_of)
    check_contest(contest, scores, samples_of)
    rows = [_row(cells, scores, budget) for cells in controls]
    rows += [ControlRow(dataset=c.dataset, defense=c.defense, budget=budget, reasons=(_why(c),)) for c in failed]
    rows.sort(key=lambda row: (not row.broken, row.defense.name.lower()))
    return Exam(dataset=cell.dataset, rows=tuple(rows))


def _row(cells: Sequence[Cell], scores: ContestScores, budget: Budget) -> ControlRow:
    newest = max(cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key))
    found = verdict([cell.record for cell in cells], budget)
    own = scores.of(newest.defense.name)
    row = ControlRow(
        dataset=newest.dataset,
        defense=newest.defense,
        budget=budget,
        seeds=tuple(cell.seed for cell in cells),
        status=str(found.status),
        reasons=found.reasons,
        flags=tuple(sorted({flag.name for flag in found.flags})),
    )
    if own is None or budget.label not in own.robust:
        return row
    row = replace(
        row,
        n=len(own.sample_ids),
        clean=float(own.clean.mean()),
        measured=float(own.robust[budget.label].mean()),
        truth=_truth(cells, own, scores, budget),
    )
    return replace(row, outcome=_outcome(row, found))


def _truth(cells: Sequence[Cell], own: EntrantScores, scores: ContestScores, budget: Budget) -> float:
    """Returns the true robust score as the entry says it is known; the lowest score found where that is missing."""
    facts = cells[0].defense
    if facts.truth.known_by == KnownBy.CERTIFICATE:
        metrics = [result.metrics for cell in cells for b, result in cell.budgets if b.label == budget.label]
        if metrics and all(CERTIFIED in found for found in metrics):
            return fmean(found[CERTIFIED].value for found in metrics)
    lowest = own
    if facts.truth.known_by == KnownBy.BASE and scores.has(facts.base) and scores.of(facts.base) is not None:
        lowest = scores.of(facts.base)
    if budget.label not in lowest.best_known or not np.isin(own.sample_ids, lowest.sample_ids).all():
        lowest = own
    shared = np.isin(lowest.sample_ids, own.sample_ids)
    return float(lowest.best_known[budget.label][:, shared].mean())


def _outcome(row: ControlRow, found: Verdict) -> Outcome:
    doubted = found.status is not VerdictStatus.VERIFIED and bool(found.flags)
    if found.status is not VerdictStatus.VERIFIED and not doubted:
        return Outcome.INCOMPLETE
    too_high = row.measured > row.truth + TOLERANCE
    if row.broken:
        return Outcome.CAUGHT if doubted or not too_high else Outcome.MISSED
    if doubted:
        return Outcome.FALSE_ALARM
    return Outcome.TOO_HIGH if too_high else Outcome.ACCEPTED


def _why(cell: Cell) -> str:
    failure = cell.record.failure
    return f"{failure.kind}: {failure.message}" if failure else "no reason was recorded"


def table(exams: Iterable[Exam]) -> list[Mapping[str, object]]:
    """Returns every row of every exam as plain values, fractions throughout, for exports."""
    return [
        {
            "dataset": row.dataset.name,
            "defense": row.defense.name,
            "family": row.defense.family,
            "budget": row.budget.label,
            "n": row.n,
            "seeds": list(row.seeds),
            "clean": row.clean,
            "truth": row.truth,
            "known_by": row.defense.truth.known_by,
            "measured": row.measured,
            "flags": list(row.flags),
            "status": row.status,
            "outcome": str(row.outcome),
        }
        for exam in exams
        for row in exam.rows
    ]
