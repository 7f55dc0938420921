"""Escalation: what is tried by itself where a flag says that the protocol's attacks may have failed.

Every rung attacks at the ranked budget and lowers the worst case where it can; the record says what was tried and what
it lowered.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from attacks.engine import BudgetOutcome
from attacks.ensemble_parts import averaged
from attacks.member_run import MemberOutcome
from attacks.soundness.comparisons import STEPS
from attacks.soundness.convergence import continues, largest_option
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import Cell, FreshRun, knowledge_of, run_fresh
from attacks.soundness.ledger import Ledger
from attacks.soundness.views import View, all_views
from attacks.soundness.witness import witnesses
from registry import Knowledge, Member, Norm, Randomness, settling_limit

_log = logging.getLogger(__name__)

VIEW_STEPS = 100
"""APGD steps of the first run through each view; another model's gradient gets twice as many."""
LONGER = 5
"""How many times the protocol's steps the long run takes."""
QUERIES, DECISIONS, ESTIMATES = 5000, 2000, 10
"""Queries of Square where the protocol has no black-box member, of the decision-based attack, and estimated steps."""
DECISION_BASED = "attacks.hop_skip_jump:HopSkipJump"
"""The attack that needs nothing but decisions, where the protocol has none."""
PILOT = 64
"""Samples with graded scores on which a rung is tried before it meets all of them."""
MOST_DRAWS = 64
"""Draws of a gradient at which the sweep ends, flat or not."""


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """What was tried after a red flag, and what it changed."""

    flags: tuple[Finding, ...]
    """The red flags that started it."""
    members: tuple[MemberOutcome, ...]
    """Every attack that was tried, in order; they met what was left, except for the first run through each view."""
    strongest: View
    """The gradient through which most samples of the audit set break from scratch."""
    why: str
    """How many samples each view broke from scratch."""
    robust_before: float
    """Mean worst score before it."""
    robust_after: float
    """Mean worst score after it."""
    failure: str
    """Why it did not finish; empty where it did."""


class Escalator:
    """Climbs the rungs of the escalation on one cell.

    Args:
        cell: The evaluated cell.
        view: The gradient that the flags judged.
        objectives: What gradient attacks ascend.
        rows: int64 (n,), the audit set.
        main: What the protocol did at the ranked budget.
        ledger: The worst case so far; lowered here.
        watch: Told the name of each rung.
    """

    def __init__(
        self,
        cell: Cell,
        view: View,
        objectives: tuple[str, ...],
        rows: Tensor,
        main: BudgetOutcome,
        ledger: Ledger,
        watch: Callable[[str], None],
    ) -> None:
        self._cell, self._view, self._objectives, self._rows = cell, view, objectives, rows
        self._main, self._ledger, self._watch = main, ledger, watch
        self._victim = view.access.victim
        self._errors: list[str] = []
        self._strongest, self._why, self._salt = view, "no view was compared", 50

    def climb(self, flags: tuple[Finding, ...], clean_outputs) -> Escalation:
        """Runs every rung; one that raises ends the escalation unfinished.

        Args:
            flags: The red flags.
            clean_outputs: Outputs of the victim on all samples of the cell.
        """
        before, earlier = self._ledger.mean(), len(self._ledger.later)
        try:
            self._compare_views()
            for name, access, members, starts in self._rungs(clean_outputs):
                rows = self._ledger.alive
                if not len(rows):
                    break
                self._watch(f"escalation, {name}")
                self._climb_rung(name, access, rows, members, starts)
        except torch.OutOfMemoryError:  # no fault of the attacks: the cell begins again with fewer slots
            raise
        except Exception as error:  # whatever happens here must not read as robustness
            _log.warning("the escalation ended early: %s", traceback.format_exc())
            self._errors.append(f"{type(error).__name__}: {error}")
        return Escalation(
            flags=flags,
            members=tuple(self._ledger.later[earlier:]),
            strongest=self._strongest,
            why=self._why,
            robust_before=before,
            robust_after=self._ledger.mean(),
            failure="; ".join(self._errors),
        )

    def _climb_rung(self, name: str, access, rows: Tensor, members: tuple[Member, ...], starts: Tensor | None) -> None:
        """Attacks the survivors; graded ones, on which nothing stops early, `PILOT` first and the rest where it pays.

        It does not where the first ones fall by so little that all of them would not unsettle the row by a third.
        """
        first = torch.ones_like(rows, dtype=torch.bool)
        if self._cell.facts.graded and len(rows) > 2 * PILOT:
            order = self._cell.batch.sample_ids[rows].argsort()
            first[order[PILOT:]] = False
        before, n = self._ledger.mean(), len(self._ledger.scores)
        for chosen in (first, ~first):
            if chosen.any():
                self._run(name, access, rows[chosen], members, None if starts is None else starts[chosen])
            fallen = n * (before - self._ledger.mean()) * len(rows) / int(first.sum())
            if fallen < settling_limit(n) / 3:
                break

    def _compare_views(self) -> None:
        """Runs APGD through every view from scratch on the audit set and the survivors, and keeps the strongest."""
        rows = torch.cat([self._rows, self._ledger.alive]).unique()
        audited = torch.isin(rows, self._rows)
        clean = self._cell.batch.take(rows[audited])
        gains = []
        own = "victim" if self._view.transfers else self._view.source
        for view in all_views(self._view.access, clean.take(slice(0, 32)), self._view.eot_samples, own):
            self._watch(f"escalation, {view.name}")
            steps = VIEW_STEPS * (2 if view.transfers else 1)
            members = view.members(self._cell.facts, self._objectives, steps, 1)
            run = self._run("view", view.access, rows, members)
            gains.append((1 - clean.mean(run.scores[audited]), int(run.broken[audited].sum()), view))
        self._strongest = max(gains, key=lambda gain: gain[0])[2]
        counts = ", ".join(f"{view.name} {broken}" for _, broken, view in gains)
        self._why = f"of {len(clean)} audited samples, each from scratch, break by: {counts}"

    def _rungs(self, clean_outputs) -> Iterator[tuple[str, object, tuple[Member, ...], Tensor | None]]:
        """Yields name, access, members and starting points of what is tried on the survivors, in order."""
        view, facts, objectives = self._strongest, self._cell.facts, self._objectives
        if self._victim.randomness is not Randomness.NONE:
            view = yield from self._sweep(view)
        starts = self._witness_starts(clean_outputs)
        yield "from a witness", view.access, view.members(facts, objectives, VIEW_STEPS, 1), starts
        steps = LONGER * largest_option(self._main, "steps", STEPS)
        starts = self._ledger.points[self._ledger.alive] if continues(facts) else None
        yield "long run", view.access, view.members(facts, objectives, steps, 1), starts
        for member in self._more_queries():
            yield "queries", view.access, (member,), None

    def _sweep(self, view: View):
        """Yields runs with four times the draws each until the score stays; the strongest view keeps the last."""
        draws, flat = view.eot_samples, False
        while draws < MOST_DRAWS and not flat:
            draws = min(4 * max(draws, 1), MOST_DRAWS)
            view = replace(view, eot_samples=draws)
            before = self._ledger.mean()
            members = view.members(self._cell.facts, self._objectives, VIEW_STEPS, 1)
            yield f"{draws} draws", view.access, members, None
            n = len(self._ledger.scores)
            flat = n * (before - self._ledger.mean()) <= settling_limit(n)
        self._strongest = view
        return view

    def _witness_starts(self, clean_outputs) -> Tensor:
        """Returns where the survivors begin: their witness of an unbounded ball, or the original where none is."""
        batch = self._cell.batch
        alive = self._ledger.alive
        found = witnesses(self._victim, batch, alive, clean_outputs)
        shape = (-1, *[1] * (batch.inputs.ndim - 1))
        return torch.where((found >= 0).reshape(shape), batch.inputs[found.clamp(min=0)], batch.inputs[alive])

    def _more_queries(self) -> list[Member]:
        """Returns black-box members with twice the queries, a decision-based one, and estimated gradients.

        Decisions are for 0/1 scores: of a graded one they say no more than on which side of one value it lies.
        """
        ours = [m.member for m in self._main.members if knowledge_of(m.member) is not Knowledge.WHITE_BOX]
        members = []
        for member in ours:
            more = {"queries": 2 * int(member.options["queries"])} if "queries" in member.options else {}
            members.append(replace(member, name=f"{member.name}, more", options={**member.options, **more}))
        if not ours and self._cell.protocol.threat_model.norm is Norm.LINF:
            members.append(_score_based("square", "attacks.square:Square", {"queries": QUERIES}, self._objectives[0]))
        decided = any(knowledge_of(member) is Knowledge.DECISION_BASED for member in ours)
        if not (decided or self._cell.facts.graded) and find_spec(DECISION_BASED.partition(":")[0]):
            options = {"queries": DECISIONS} | averaged(self._cell.facts, 16)
            members.append(_score_based("hop-skip-jump", DECISION_BASED, options, self._objectives[0]))
        options = {"iterations": ESTIMATES, "pairs": 32} | averaged(self._cell.facts, 4)
        estimated = "attacks.finite_differences:FiniteDifferences"
        return [*members, _score_based("finite-differences", estimated, options, self._objectives[0])]

    def _run(self, rung: str, access, rows: Tensor, members: tuple[Member, ...], starts=None) -> FreshRun:
        """Runs attacks from scratch and keeps what they found."""
        self._salt += 1
        members = tuple(replace(member, name=f"escalation, {rung}: {member.name}") for member in members)
        run = run_fresh(self._cell, access, rows, members, salt=self._salt, starts=starts)
        self._ledger.take(rows, run)
        if run.errors:
            self._errors.append(run.errors)
        return run


def _score_based(name: str, attack: str, options: dict[str, object], objective: str) -> Member:
    return Member(name=name, attack=attack, options=options, objective=objective)
