"""The worst case at the ranked budget, as probes and the escalation lower it after the main run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.engine import BudgetOutcome, Outcome
from attacks.member_run import MemberOutcome
from attacks.soundness.fresh import Cell, FreshRun, worse
from attacks.victim import ModelVictim
from registry import Member

PROBES = "probes"
"""Name under which records list what probes found on their way."""


class Ledger:
    """Keeps the worst candidate of each sample, and counts for each attack what it lowered.

    Args:
        cell: The evaluated cell.
        victim: Who judges.
        main: What the protocol did at the ranked budget.
    """

    def __init__(self, cell: Cell, victim: ModelVictim, main: BudgetOutcome) -> None:
        self._cell, self._victim, self._main = cell, victim, main
        self.points, self.scores = main.points.clone(), main.scores.clone()
        self.found_by, self.step = list(main.found_by), main.step.clone()
        self.later: list[MemberOutcome] = []
        """Attacks after the main run, in order."""

    @property
    def alive(self) -> Tensor:
        """int64 (k,): samples on which something is left to gain."""
        return (self.scores > self._victim.task.stop_at).nonzero()[:, 0]

    def take(self, rows: Tensor, run: FreshRun, name: str | None = None) -> None:
        """Keeps what a run found on some samples.

        Args:
            rows: int64 (n,), places of the run's samples in the cell.
            run: The run.
            name: Who found it; by default the members of the run.
        """
        known = self.scores[rows]
        chosen = worse(self._victim, self._cell.batch.take(rows), (self.points[rows], known), (run.points, run.scores))
        breaks = chosen & run.broken & (known >= self._victim.task.fail_below)
        places = rows[chosen]
        self.points[places], self.scores[places] = run.points[chosen], run.scores[chosen]
        self.step[places] = run.step[chosen]
        for row in chosen.nonzero()[:, 0].tolist():
            self.found_by[int(rows[row])] = name or run.found_by[row]
        for outcome in run.members:
            own = torch.tensor([found == outcome.member.name for found in run.found_by], device=chosen.device)
            lowered, broken = int((chosen & own).sum()), int((breaks & own).sum())
            self.later.append(replace(outcome, lowered=lowered, broken=broken, robust_after=self.mean()))

    def mean(self) -> float:
        """Returns the mean worst score of the cell."""
        return self._cell.batch.mean(self.scores)

    def now(self) -> BudgetOutcome:
        """Returns the ranked budget as it stands, with all later attacks among its members."""
        return replace(
            self._main,
            scores=self.scores.clone(),
            points=self.points.clone(),
            found_by=tuple(self.found_by),
            step=self.step.clone(),
            members=(*self._main.members, *self.later),
        )

    def write(self, outcome: Outcome, by_probes: list[MemberOutcome], audited: int) -> Outcome:
        """Returns the outcome with what was found in the ranked budget and in every larger one, whose balls hold it.

        Args:
            outcome: What the protocol did.
            by_probes: What the probes ran; they become one further member of the ranked budget, named "probes".
            audited: Samples that the probes looked at.
        """
        probes = _as_one(by_probes, audited, self.mean())
        budgets = []
        for old in outcome.budgets:
            ranked = old.budget == self._cell.budget
            if old.budget.size < self._cell.budget.size:
                budgets.append(old)
                continue
            mine = torch.tensor([a != b for a, b in zip(self.found_by, self._main.found_by, strict=True)])
            chosen = mine.to(old.scores.device)
            if not ranked:
                chosen &= worse(self._victim, self._cell.batch, (old.points, old.scores), (self.points, self.scores))
            mask = chosen.reshape(-1, *[1] * (old.points.ndim - 1))
            names = zip(chosen.tolist(), self.found_by, old.found_by, strict=True)
            budgets.append(
                replace(
                    old,
                    scores=torch.where(chosen, self.scores, old.scores),
                    points=torch.where(mask, self.points, old.points),
                    found_by=tuple(new if later else known for later, new, known in names),
                    step=torch.where(chosen, self.step, old.step),
                    members=(*old.members, probes) if ranked else old.members,
                )
            )
        return replace(outcome, budgets=tuple(budgets))


def _as_one(members: list[MemberOutcome], attempted: int, robust_after: float) -> MemberOutcome:
    names = ("lowered", "broken", "violations", "no_gradient", "forwards", "backwards", "seconds")
    return MemberOutcome(
        member=Member(name=PROBES, attack="attacks.soundness.examination:examine", objective=""),
        attempted=attempted,
        robust_after=robust_after,
        errors=0,
        unmoved=0,
        error=None,
        **{name: sum(getattr(member, name) for member in members) for name in names},
    )
