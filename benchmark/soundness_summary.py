"""Turns an examination into what a record holds: flags, and what an escalation tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from attacks.engine import Outcome
from attacks.soundness.comparisons import CLEARLY
from attacks.soundness.escalation import Escalation as Climb
from attacks.soundness.finding import Finding
from benchmark.summary import member_result
from registry import Budget, settling_limit
from results.record import Escalation, Flag


def flags_of(findings: Iterable[Finding]) -> tuple[Flag, ...]:
    """Returns findings as flags of a record."""
    return tuple(Flag(**asdict(finding)) for finding in findings)


def with_lost(findings: Iterable[Finding], found: Outcome, stored: Outcome) -> tuple[Finding, ...]:
    """Returns the findings, "stateful" among them red where a model denies what it answered during the attack.

    Every adversarial is scored once more when it is stored. A deterministic model that then gets clearly higher scores
    answers by something else than its input, and its record would show the higher ones.

    Args:
        findings: What the examination found; nothing is added to an examination that did not take place.
        found: What the attacks did.
        stored: The same in terms of what is stored.
    """
    lost, n = 0, len(found.clean_scores)
    for before, after in zip(found.budgets, stored.budgets, strict=True):
        lost = max(lost, int((after.scores > before.scores + CLEARLY).sum()))
    if lost <= settling_limit(n):
        return tuple(findings)
    text = f"{lost} of {n} adversarials were right again when they were stored (limit {settling_limit(n):g})"
    return tuple(
        replace(own, red=True, evidence=f"{text}; {own.evidence}", values=own.values | {"lost": float(lost)})
        if own.name == "stateful"
        else own
        for own in findings
    )


def escalation_of(climb: Climb | None, budget: Budget) -> Escalation | None:
    """Returns what was tried after a red flag at a budget, or None where nothing was."""
    if climb is None:
        return None
    return Escalation(
        budget=budget.card(),
        flags=flags_of(climb.flags),
        members=tuple(member_result(member) for member in climb.members),
        strongest=climb.strongest.name,
        why=climb.why,
        robust_before=climb.robust_before,
        robust_after=climb.robust_after,
        failure=climb.failure,
    )
