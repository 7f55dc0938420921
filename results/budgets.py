"""How a threat model and a budget are read from a record, whose floats are rounded."""

from __future__ import annotations

from registry import Budget, Norm, ThreatModel
from results.record import Card, EvaluationRecord
from results.serialize import rounded


def as_threat_model(card: Card) -> ThreatModel:
    """Returns the threat model of a card."""
    default = ThreatModel()
    return ThreatModel(**{name: type(getattr(default, name))(card[name]) for name in ThreatModel.__slots__})


def as_budget(budget: Budget | Card) -> Budget:
    """Returns the budget of a card, or the budget itself, with eps as records keep it."""
    if isinstance(budget, Budget):
        budget = budget.card()
    eps = budget["eps"]
    values = tuple(rounded(value) for value in (eps if isinstance(eps, (list, tuple)) else [eps]))
    return Budget(norm=Norm(budget["norm"]), eps=values if isinstance(eps, (list, tuple)) else values[0])


def budget_index(record: EvaluationRecord, budget: Budget | Card) -> int | None:
    """Returns the place of a budget among those of a record, or None where the record has no result for it."""
    wanted = as_budget(budget)
    return next((index for index, result in enumerate(record.budgets) if as_budget(result.budget) == wanted), None)


def within(inner: Budget | Card, outer: Budget | Card) -> bool:
    """Returns whether every ball of one budget lies in that of another: the same norm, and no larger eps anywhere."""
    return as_budget(outer).holds(as_budget(inner))
