"""Whether a row's number may be trusted: the decision table, as a list whose first match holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from registry import Budget
from results.adapted import Tried, unsettled
from results.budgets import as_budget, budget_index
from results.record import BudgetResult, Card, EvaluationRecord, Flag, RecordStatus

PROBES = frozenset(
    {
        "dishonest-gradient",
        "zero-gradient",
        "jumping-margin",
        "discontinuous",
        "black-box-beats-white-box",
        "unbounded-survivors",
        "not-converged",
        "not-monotone",
        "one-step-beats-many",
        "noise-beats-gradient",
        "stochastic-undeclared",
        "stateful",
        "train-mode",
    }
)
"""Soundness flags; a record that holds none of them, red or not, was never probed."""

UNDECLARED = frozenset({"stateful", "train-mode", "stochastic-undeclared"})
"""Flags after which a number means nothing, neither high nor low."""

CERTAINLY_BROKEN = 0.01
"""Robust score up to which flags have no say: they can only mean that a number is too high."""

SHOWN = 0.0005
"""Least fall that a percentage with one decimal shows."""


class VerdictStatus(StrEnum):
    """How far a row's number may be trusted; only verified rows get a rank."""

    VERIFIED = "verified"
    """Nothing speaks against it."""
    CONTESTED = "contested"
    """A sign that it is too high: printed "<= S"."""
    UNVERIFIED = "unverified"
    """It is incomplete, or measures something else than the defense."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A row's status with its reasons."""

    status: VerdictStatus
    """verified, contested or unverified."""
    reasons: tuple[str, ...]
    """Why, in words; empty for a verified row that never had a red flag."""
    flags: tuple[Flag, ...]
    """Red flags of all records, in order."""


BY_PROBES = "probes"
"""Member under which records list what the soundness probes broke; where no sample is right, none is probed."""


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """One record at the ranked budget."""

    record: EvaluationRecord
    result: BudgetResult | None
    planned: tuple[str, ...]
    """Members that must have run."""
    tried: Tried | None
    """Protocols that attacked the same weights; None where nobody asks."""

    @property
    def red(self) -> tuple[Flag, ...]:
        return tuple(flag for flag in self.record.flags if flag.red)


def verdict(
    records: Sequence[EvaluationRecord], budget: Budget | Card, *, tried: Sequence[Tried] | None = None
) -> Verdict:
    """Returns how far the number of one row may be trusted.

    Each record is judged by the first rule that matches; the row gets the worst status of its records, with all
    reasons of that status. A record's flags are those computed again after its escalation, so one that is red still
    persists.

    Args:
        records: The ranked protocol's records of one row: one per training seed.
        budget: The ranked budget, as a value or as its card.
        tried: For each record, the protocols that attacked the same weights; None where it is no matter whether the
            adaptive ones were among them.
    """
    if not records:
        return Verdict(status=VerdictStatus.UNVERIFIED, reasons=("not evaluated yet",), flags=())
    budget = as_budget(budget)
    results = [_result(record, budget) for record in records]
    union = tuple(dict.fromkeys(name for result in results if result for name in _planned(result) if name != BY_PROBES))
    all_facts = [
        _Facts(record=record, result=result, planned=union, tried=names)
        for record, result, names in zip(records, results, tried or [None] * len(records), strict=True)
    ]
    judged = [_judge(facts, budget) for facts in all_facts]
    status = max((status for status, _ in judged), key=list(VerdictStatus).index)
    reasons = []
    for facts, (own, why) in zip(all_facts, judged, strict=True):
        seed = f"seed {facts.record.checkpoint.seed}: " if len(records) > 1 and facts.record.checkpoint else ""
        reasons += [seed + reason for reason in why if own is status]
    red = tuple(flag for facts in all_facts for flag in facts.red)
    return Verdict(status=status, reasons=tuple(dict.fromkeys(reasons)), flags=red)


def _judge(facts: _Facts, budget: Budget) -> tuple[VerdictStatus, tuple[str, ...]]:
    """Returns the status of the first rule that matches a record, with its reasons."""
    for rule, status in _RULES:
        reasons = tuple(rule(facts, budget))
        if reasons:
            return status, reasons
    return VerdictStatus.VERIFIED, ()


def _failed(facts: _Facts, budget: Budget) -> Iterable[str]:
    if facts.record.status is RecordStatus.FAILED:
        failure = facts.record.failure
        yield f"the cell failed: {failure.kind}: {failure.message}" if failure else "the cell failed"


def _incomplete(facts: _Facts, budget: Budget) -> Iterable[str]:
    result, planned = facts.result, facts.record.n_planned
    if result is None or "robust" not in result.metrics:
        yield f"no result at {budget.label}"
        return
    missing = [name for name in facts.planned if name not in {member.name for member in result.members}]
    if missing:
        yield f"members that did not run: {', '.join(missing)}"
    if not result.members:
        yield "no attack ran"
    for member in result.members:
        if member.errors or member.error:
            yield f"{member.name} ended with an error on {member.errors} of {member.attempted} samples"
    rows = facts.record.samples.rows if facts.record.samples else result.metrics["robust"].n
    if rows < planned:
        yield f"{rows} samples of {planned} planned"


def _undeclared(facts: _Facts, budget: Budget) -> Iterable[str]:
    for flag in facts.red:
        if flag.name in UNDECLARED:
            yield f"{flag.name}: {flag.evidence}; declare it and run again"


def _unprobed(facts: _Facts, budget: Budget) -> Iterable[str]:
    if not PROBES & {flag.name for flag in facts.record.flags}:
        yield "soundness probes were not run"


def _certainly_broken(facts: _Facts, budget: Budget) -> Iterable[str]:
    if (facts.red or facts.record.escalation is not None) and _is_broken(facts):
        score = facts.result.metrics["robust"].value
        yield f"robust score {score:.1%}: flags can only mean that a number is too high"


def _unfinished(facts: _Facts, budget: Budget) -> Iterable[str]:
    escalation = facts.record.escalation
    if escalation is None and facts.red:
        yield f"red flags were not escalated: {', '.join(flag.name for flag in facts.red)}"
    if escalation is not None and escalation.failure:
        yield f"the escalation did not finish: {escalation.failure}"


def _persisting(facts: _Facts, budget: Budget) -> Iterable[str]:
    """Flags that are red after the escalation; `not-converged` is then the last doubling of the effort."""
    for flag in facts.red:
        last = "the last doubling still lowered the score, " if flag.name == "not-converged" else ""
        yield f"{last}{flag.name}: {flag.evidence}"


def _elsewhere(facts: _Facts, budget: Budget) -> Iterable[str]:
    """At another budget the protocol's attacks ran alone, with less effort and a gradient that was flagged."""
    escalation = facts.record.escalation
    if escalation is None or as_budget(escalation.budget) == as_budget(budget):
        return
    fall, where = escalation.robust_before - escalation.robust_after, as_budget(escalation.budget).label
    yield (
        f"the escalation ran at {where} only, and lowered the score there by {100 * fall:.1f} points; what would "
        "settle it: an attack that knows the trick at this budget, e.g. adversarials handed in with challenge"
    )


def _unsettled(facts: _Facts, budget: Budget) -> Iterable[str]:
    """Defenses with a trick of their own, before an attack that knows it has settled their number."""
    if facts.tried is not None and not _is_broken(facts):
        yield from unsettled(facts.record, budget, facts.tried)


def _is_broken(facts: _Facts) -> bool:
    return facts.result.metrics["robust"].value <= CERTAINLY_BROKEN


def _escalated(facts: _Facts, budget: Budget) -> Iterable[str]:
    escalation = facts.record.escalation
    if escalation is not None:
        names = ", ".join(flag.name for flag in escalation.flags)
        end = facts.result.metrics["robust"].value
        probed = f", and to {end:.1%} by the probes after it" if escalation.robust_after - end >= SHOWN else ""
        yield (
            f"escalated from {escalation.robust_before:.1%} to {escalation.robust_after:.1%}{probed} after {names}; "
            f"no flag is red under {escalation.strongest}"
        )


_Rule = Callable[[_Facts, Budget], Iterable[str]]
_RULES: tuple[tuple[_Rule, VerdictStatus], ...] = (
    (_failed, VerdictStatus.UNVERIFIED),
    (_incomplete, VerdictStatus.UNVERIFIED),
    (_undeclared, VerdictStatus.UNVERIFIED),
    (_unprobed, VerdictStatus.UNVERIFIED),
    (_certainly_broken, VerdictStatus.VERIFIED),
    (_unfinished, VerdictStatus.UNVERIFIED),
    (_persisting, VerdictStatus.CONTESTED),
    (_elsewhere, VerdictStatus.CONTESTED),
    (_unsettled, VerdictStatus.CONTESTED),
    (_escalated, VerdictStatus.VERIFIED),
)


def _result(record: EvaluationRecord, budget: Budget) -> BudgetResult | None:
    index = budget_index(record, budget)
    return None if index is None else record.budgets[index]


def _planned(result: BudgetResult) -> tuple[str, ...]:
    return result.planned or tuple(member.name for member in result.members)
