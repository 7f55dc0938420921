"""Turns an examination into what a record holds: flags, and what an escalation tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from attacks.soundness.escalation import Escalation as Climb
from attacks.soundness.finding import Finding
from benchmark.summary import member_result
from registry import Budget
from results.record import Escalation, Flag


def flags_of(findings: Iterable[Finding]) -> tuple[Flag, ...]:
    """Returns findings as flags of a record."""
    return tuple(Flag(**asdict(finding)) for finding in findings)


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
