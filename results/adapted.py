"""Whether an attack that knows a defense's trick has settled its number: purifiers, and random draws at inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from registry import Budget, Norm, settling_limit
from results.best_known import is_stochastic
from results.record import BudgetResult, EvaluationRecord

SWEEP = "adaptive:eot-sweep"
"""The protocol whose members take more and more draws: only where it ends flat is the number of a defense that draws
random numbers settled, of whatever family it is."""

ADAPTIVE = {"purification": "adaptive:purifier"}
"""The protocol that knows the trick of a family; where it did not run a number in the Linf ball is an upper bound.
Other norms have no such protocol: what ranks there goes through the whole defense by scores alone or by its gradient.
"""

Tried = Mapping[str, BudgetResult | None]
"""The other protocols that attacked the weights of a record, and what each did at the row's budget, None if nothing."""


def unsettled(record: EvaluationRecord, budget: Budget, tried: Tried) -> Iterator[str]:
    """Yields why a number is still an upper bound: its trick was not attacked at its budget, or more draws lower it.

    What the protocol broke in smaller balls lowers the score, but an attack that met the defense there alone says
    nothing of what survives here.

    Args:
        record: The ranked protocol's record.
        budget: The row's budget.
        tried: Who else attacked the same weights.
    """
    for needed in needed_protocols(record):
        if needed not in tried:
            if budget.norm is Norm.LINF:
                cell = f"--dataset {record.dataset['name']} --defense {record.defense['name']} --protocol {needed}"
                run = f"python -m benchmark run --suite full {cell}"
                yield f"{needed}, which knows its trick, has not attacked it: {run}"
        elif needed == SWEEP:
            yield from _still_falling(tried[SWEEP], budget)
        elif tried[needed] is None:
            yield (
                f"{needed}, which knows its trick, did not attack it at {budget.label}; what would settle it: add this "
                "budget to that protocol's entry and run it again"
            )


def needed_protocols(record: EvaluationRecord) -> tuple[str, ...]:
    """Returns the protocols that know the tricks of a record's defense: its family's, and that of random draws."""
    family = ADAPTIVE.get(record.defense.get("family"))
    return (*([family] if family else []), *([SWEEP] if is_stochastic(record) else []))


def _still_falling(sweep: BudgetResult | None, budget: Budget) -> Iterator[str]:
    if sweep is None:
        yield (
            f"{SWEEP} did not attack it at {budget.label}: nothing shows that more draws would not lower the score; "
            "what would settle it: add this budget to that protocol's entry and run it again"
        )
        return
    fall, n = late_fall(sweep), sweep.metrics["robust"].n
    if fall == float("inf"):
        yield f"the members of {SWEEP} do not show whether more draws would lower the score; run it again"
    elif fall * n > settling_limit(n):
        yield f"the second half of the draws of {SWEEP} still lowered the score by {fall:.1%}"


def late_fall(result: BudgetResult) -> float:
    """Returns by how much the members lowered the mean worst score after half of all gradients were spent.

    Infinity where nothing shows how the curve goes on: no gradient was spent, most of them were empty, or one member
    spent more than half of all before anything was scored.
    """
    if 2 * sum(member.no_gradient for member in result.members) > sum(member.backwards for member in result.members):
        return float("inf")
    spent = list(accumulate(member.backwards for member in result.members))
    early = [m.robust_after for m, total in zip(result.members, spent, strict=True) if 0 < total <= spent[-1] / 2]
    return early[-1] - result.members[-1].robust_after if early else float("inf")
