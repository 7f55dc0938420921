"""Whether an attack that knows a defense's trick has settled its number: purifiers, and noise at inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from registry import Budget, Norm
from results.best_known import is_stochastic
from results.record import BudgetResult, EvaluationRecord

SWEEP = "adaptive:eot-sweep"
"""The protocol whose members take more and more draws: only where it ends flat is a noise defense's number settled."""

ADAPTIVE = {"purification": "adaptive:purifier", "noise injection": SWEEP}
"""The protocol that knows the trick of a family; without it a number of theirs in the Linf ball is an upper bound.
Other norms have no such protocol: what ranks there goes through the whole defense by scores alone or by its gradient.
"""

FLAT = (3.0, 0.005)
"""Samples, and share of them: a score that falls by more than the larger of both has not settled."""

Tried = Mapping[str, BudgetResult | None]
"""The other protocols that attacked the weights of a record, and what each did at the row's budget, None if nothing."""


def unsettled(record: EvaluationRecord, budget: Budget, tried: Tried) -> Iterator[str]:
    """Yields why a number is still an upper bound: its trick was not attacked, or more draws still lower it.

    Args:
        record: The ranked protocol's record.
        budget: The row's budget.
        tried: Who else attacked the same weights.
    """
    defense = record.defense
    needed = ADAPTIVE.get(defense.get("family"))
    if needed is None or (needed == SWEEP and not is_stochastic(record)):
        return
    if needed not in tried:
        if budget.norm is Norm.LINF:
            cell = f"--dataset {record.dataset['name']} --defense {defense['name']} --protocol {needed}"
            yield f"{needed}, which knows its trick, has not attacked it: python -m benchmark run --suite full {cell}"
        return
    result = tried[needed]
    if needed == SWEEP and result is not None:
        fall, n = late_fall(result), result.metrics["robust"].n
        if fall * n > max(FLAT[0], FLAT[1] * n):
            yield f"the second half of the draws of {SWEEP} still lowered the score by {fall:.1%}"


def late_fall(result: BudgetResult) -> float:
    """Returns by how much the members lowered the mean worst score after half of all gradients were spent.

    Infinity where one member spent more than half before anything was scored: nothing shows where the curve goes.
    """
    spent = list(accumulate(member.backwards for member in result.members))
    early = [m.robust_after for m, total in zip(result.members, spent, strict=True) if total <= spent[-1] / 2]
    return early[-1] - result.members[-1].robust_after if early else float("inf")
