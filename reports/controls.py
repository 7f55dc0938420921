"""The benchmark's own exam: what it says of defenses whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from registry import Budget
from registry.threat_model import EVERYTHING
from reports.cards import Cell
from reports.certificates import check_contest
from reports.exam import TOLERANCE, ControlRow, Exam, Outcome
from reports.scores import ContestScores
from reports.selection import Contest
from reports.truths import truth_of
from results.best_known import ReadSamples
from results.verdict import Verdict, VerdictStatus, verdict


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
    groups = [(contest, [cells[0].defense.name for cells in controls]), *_of_fewer_samples(contest)]
    rows = [row for some, names in groups for row in _rows(some, names, samples_of, budget)]
    rows += [ControlRow(dataset=c.dataset, defense=c.defense, budget=budget, reasons=(_why(c),)) for c in failed]
    rows.sort(key=lambda row: (not row.broken, row.defense.name.lower(), -row.n))
    return Exam(dataset=cell.dataset, rows=tuple(rows))


def _of_fewer_samples(contest: Contest) -> list[tuple[Contest, list[str]]]:
    """Returns the controls whose other training seeds were evaluated on fewer samples, by their number.

    Each with the contest in which they are graded: what they wrap stays, unless it was evaluated on as few.
    """
    found = []
    for size in sorted({cell.n for cells in contest.shorter.values() for cell in cells}, reverse=True):
        fewer = {name: tuple(cell for cell in cells if cell.n == size) for name, cells in contest.shorter.items()}
        fewer = {name: cells for name, cells in fewer.items() if cells and cells[0].defense.truth is not None}
        found.append((replace(contest, entrants={**contest.entrants, **fewer}, shorter={}), list(fewer)))
    return found


def _rows(contest: Contest, names: Iterable[str], samples_of: ReadSamples, budget: Budget) -> list[ControlRow]:
    scores = ContestScores(contest, samples_of)
    check_contest(contest, scores, samples_of)
    return [_row(contest.entrants[name], contest, scores, budget) for name in names]


def _row(cells: Sequence[Cell], contest: Contest, scores: ContestScores, budget: Budget) -> ControlRow:
    newest = max(cells, key=lambda cell: (cell.record.provenance.started_at, cell.record.key))
    found = verdict([cell.record for cell in cells], budget)
    own = scores.of(newest.defense.name)
    red = {flag.name for flag in found.flags}
    row = ControlRow(
        dataset=newest.dataset,
        defense=newest.defense,
        budget=budget,
        seeds=tuple(cell.seed for cell in cells),
        status=str(found.status),
        reasons=found.reasons,
        flags=tuple(sorted(red)),
        settled=_settled(cells, red),
    )
    if own is None or budget.label not in own.robust:
        return row
    truth = truth_of(cells, contest, scores, budget)
    row = replace(
        row,
        n=len(own.sample_ids),
        clean=float(own.clean.mean()),
        measured=float(own.robust[budget.label].mean()),
        truth=truth.value,
        exact=truth.exact,
        apart=truth.apart,
    )
    return replace(row, outcome=_outcome(row, found))


def _settled(cells: Iterable[Cell], red: set[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns the flags that started a finished escalation and are red no more, by its strongest attack."""
    groups: dict[str, set[str]] = {}
    for cell in cells:
        escalation = cell.record.escalation
        if escalation is not None and not escalation.failure:
            groups.setdefault(escalation.strongest, set()).update({flag.name for flag in escalation.flags} - red)
    return tuple((attack, tuple(sorted(groups[attack]))) for attack in sorted(groups) if groups[attack])


def _outcome(row: ControlRow, found: Verdict) -> Outcome:
    doubted = found.status is not VerdictStatus.VERIFIED and bool(found.flags)
    if found.status is not VerdictStatus.VERIFIED and not doubted:
        return Outcome.INCOMPLETE
    too_high = row.measured > row.truth + TOLERANCE
    if doubted:
        return Outcome.CAUGHT if row.broken else Outcome.FALSE_ALARM
    if too_high:
        return Outcome.MISSED if row.broken else Outcome.TOO_HIGH
    if row.broken:
        return Outcome.CAUGHT if row.exact or row.measured <= TOLERANCE else Outcome.NOT_GRADED
    return Outcome.ACCEPTED if row.exact else Outcome.NOT_CONTESTED


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
            "exact": row.exact,
            "apart": row.apart,
            "measured": row.measured,
            "flags": list(row.flags),
            "settled_flags": sorted({name for _, names in row.settled for name in names}),
            "status": row.status,
            "outcome": str(row.outcome),
        }
        for exam in exams
        for row in exam.rows
    ]
