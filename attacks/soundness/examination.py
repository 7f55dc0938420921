"""Examines one evaluation: all soundness probes, the escalation of a red flag, and the probes once more after it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.ball import Ball, ball_for, support_mask
from attacks.engine import BudgetOutcome, Outcome, Watch
from attacks.journal import Journal
from attacks.soundness.answers import moved
from attacks.soundness.audit import AUDIT_SAMPLES, audit
from attacks.soundness.comparisons import Comparisons
from attacks.soundness.convergence import (
    below_constant,
    largest_option,
    noisy_gradient,
    not_converged,
    unbounded_survivors,
)
from attacks.soundness.decisions import has_many_decisions
from attacks.soundness.escalation import Escalation, Escalator
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import Cell, audit_rows
from attacks.soundness.gradient_probe import gradient_findings
from attacks.soundness.jump import jump_finding
from attacks.soundness.ledger import PROBES, Ledger
from attacks.soundness.views import View, first_view, objectives_of, private
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from registry import AttackProtocol, CellFacts, Norm, linf

PROBED = linf(4 / 255)
"""Where a norm has no short steps, as L0, gradients are probed in this ball: whether they are honest is no matter of
the norm."""
UNDECLARED = frozenset({"stateful", "train-mode", "stochastic-undeclared"})
"""Flags that no escalation can answer: the entry must declare what it does."""
CERTAINLY_BROKEN = 0.01
"""Robust score up to which nothing is escalated: a flag can only mean that a number is too high."""


def examine(
    access: Access,
    batch: Batch,
    protocol: AttackProtocol,
    facts: CellFacts,
    outcome: Outcome,
    *,
    seed: int = 0,
    watch: Watch | None = None,
    journal: Journal | None = None,
    untouched: nn.Module | None = None,
) -> tuple[Outcome, tuple[Finding, ...], Escalation | None]:
    """Returns the outcome, lowered where the escalation found more, with the flags that hold and what was tried.

    Only protocols that rank are examined, at the data set's ranked budget. Every probe works on copies of the models,
    and torch's global generators stay as they were: one model never flags the next.

    Args:
        access: Victim, search model and surrogates of the main run.
        batch: All samples of the cell.
        protocol: The protocol that ran.
        facts: What its members were chosen by.
        outcome: What it did.
        seed: Seed of the cell's attacks.
        watch: Told which stage and attack is running, and how far it is; the cell's own share is 1 by then.
        journal: What the cell has done before it was interrupted; kept up to date.
        untouched: A copy of the victim's model from before its first answer, see `untouched_copy`; None where there
            is none.
    """
    main = next((b for b in outcome.budgets if b.budget == facts.ranked_budget), None)
    if not protocol.ranks or main is None:
        return outcome, (), None
    devices = [batch.inputs.device] if batch.inputs.is_cuda else []
    copies = private(access)
    with torch.random.fork_rng(devices=devices):
        probed = (untouched, access.victim.model)
        examined = _Examination(copies, batch, protocol, facts, outcome, seed, watch, journal, *probed)(main)
    total, own = access.victim.spent, copies.victim.spent
    total.forwards, total.backwards = total.forwards + own.forwards, total.backwards + own.backwards
    return examined


class _Examination:
    """One cell under examination."""

    def __init__(
        self, access: Access, batch, protocol, facts, outcome: Outcome, seed: int, watch, journal, untouched, original
    ) -> None:
        self._access, self._outcome, self._untouched, self._original = access, outcome, untouched, original
        self._told: Watch = watch or (lambda share, text: None)
        self._cell = Cell(
            batch=batch,
            protocol=protocol,
            facts=facts,
            budget=facts.ranked_budget,
            seed=seed,
            journal=journal,
            watch=lambda share, attack: self._told(1.0, f"{self._stage}: {attack}, {share:.0%}"),
        )
        self._stage = "soundness"
        self._rows = audit_rows(batch, outcome.clean_scores, access.victim.task.fail_below, AUDIT_SAMPLES)
        mask = support_mask(protocol.threat_model, batch.inputs, batch.targets.get("mask"))
        self._ball: Ball = ball_for(protocol.threat_model, facts.ranked_budget, batch.inputs, support=mask)
        stepped = protocol.threat_model.norm in (Norm.LINF, Norm.L2)
        self._comparable = len(self._rows) > 0 and stepped
        small = replace(protocol.threat_model, norm=Norm.LINF)
        self._audited = self._ball if stepped else ball_for(small, PROBED, batch.inputs, support=mask)

    def __call__(self, main: BudgetOutcome) -> tuple[Outcome, tuple[Finding, ...], Escalation | None]:
        """Returns the outcome, the flags, and the escalation where one was needed."""
        self._objectives = objectives_of(self._cell.facts, tuple(m.member for m in main.members))
        self._clean_outputs = self._access.victim.outputs(self._cell.batch)
        self._ledger = Ledger(self._cell, self._access.victim, main)
        self._watch("probes")
        clean_scores = self._outcome.clean_scores
        view = first_view(self._access, self._cell.facts, largest_option(main, "eot_samples", 1))
        found = audit(
            self._access.victim,
            self._cell.batch,
            clean_scores,
            self._audited,
            self._objectives[0],
            backward="true" if self._comparable else view.backward,  # where nothing is escalated: what attacks followed
            untouched=self._untouched,
            original=self._original,
        )
        found += self._jump(self._access.victim, slope=view.owns_slope)
        if not self._comparable:
            found = _joined(found, self._in_pixels(view))
            return self._outcome, found + self._notes(main.scores), None
        found += self._probe(view, main, salt=0)
        red = tuple(finding for finding in found if finding.red)
        undeclared = any(finding.name in UNDECLARED for finding in red)
        escalation = None
        by_probes = list(self._ledger.later)
        if red and not undeclared and self._ledger.mean() > CERTAINLY_BROKEN:
            found, escalation = self._escalate(view, main, found, red)
            by_probes += self._ledger.later[len(by_probes) + len(escalation.members) :]
        outcome = self._ledger.write(self._outcome, by_probes, len(self._rows))
        return outcome, found + self._notes(self._ledger.scores), escalation

    def _escalate(
        self, view: View, main: BudgetOutcome, found: tuple[Finding, ...], red: tuple[Finding, ...]
    ) -> tuple[tuple[Finding, ...], Escalation]:
        """Returns the findings made again with the strongest gradient, and what was tried."""
        escalator = Escalator(self._cell, view, self._objectives, self._rows, main, self._ledger, self._watch)
        escalation = escalator.climb(red, self._clean_outputs)
        strongest = escalation.strongest
        again = self._probe(strongest, self._ledger.now(), salt=1) + self._gradient(strongest)
        return _renewed(found, again), escalation

    def _probe(self, view: View, main: BudgetOutcome, salt: int) -> tuple[Finding, ...]:
        """Returns the findings of all probes that run attacks, with one gradient as "the gradient attack".

        What the probes break on their way lowers the worst case, flag or not.
        """
        cell, objectives, rows = self._cell, self._objectives, self._rows
        findings: list[Finding | None] = []
        noisy = noisy_gradient(cell, view, objectives[0], rows)
        if noisy is not None:
            view = replace(view, eot_samples=noisy[0])
            findings.append(noisy[1])
        self._watch("fresh gradient attack")
        comparisons = Comparisons(cell, view, objectives, rows, salt)
        self._watch("comparisons")
        findings += comparisons.findings(main)
        self._watch("convergence")
        converged, runs = not_converged(cell, view, objectives, rows, main, comparisons.fresh, salt)
        findings.append(converged)
        findings.append(unbounded_survivors(cell, view, objectives, rows, comparisons.fresh, self._clean_outputs, salt))
        for places, run in (*comparisons.runs, *runs):
            self._ledger.take(places, run, PROBES)
        return tuple(finding for finding in findings if finding is not None)

    def _jump(self, source: ModelVictim, *, slope: bool) -> tuple[Finding, ...]:
        """Returns whether a margin jumps where the answer turns wrong."""
        victim, batch = self._access.victim, self._cell.batch
        if victim.task.spec.name != "classification" and not has_many_decisions(victim.task):
            return ()
        return (jump_finding(victim, batch, self._rows, self._clean_outputs, source, slope=slope),)

    def _in_pixels(self, view: View) -> tuple[Finding, ...]:
        """Returns the findings on gradients where few pixels are changed, which attacks in L0 follow."""
        if self._cell.protocol.threat_model.norm is not Norm.L0 or not len(self._rows):
            return ()
        rows = self._cell.batch.take(self._rows)
        there = moved(rows, self._ball.take(self._rows))
        ball = ball_for(replace(self._cell.protocol.threat_model, norm=Norm.LINF), PROBED, there.inputs)
        return tuple(gradient_findings(view.gradient_of, there, ball, self._objectives[0], backward=view.backward))

    def _gradient(self, view: View) -> tuple[Finding, ...]:
        """Returns whether the gradient of a view vanishes and delivers, and whether its margin jumps."""
        judge = view.access.victim if view.transfers else None
        jump = () if view.transfers else self._jump(view.gradient_of, slope=view.owns_slope)
        return jump + tuple(
            gradient_findings(
                view.gradient_of,
                self._cell.batch.take(self._rows),
                self._ball.take(self._rows),
                self._objectives[0],
                backward=view.backward,
                judge=judge,
            )
        )

    def _watch(self, text: str) -> None:
        self._stage = f"soundness, {text}"
        self._told(1.0, self._stage)

    def _notes(self, scores: Tensor) -> tuple[Finding, ...]:
        note = below_constant(self._cell, scores)
        return () if note is None else (note,)


def _joined(found: tuple[Finding, ...], elsewhere: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Returns findings, red too where those of the same name are that were made with changed pixels."""
    others = {finding.name: finding for finding in elsewhere}

    def joined(one: Finding) -> Finding:
        if one.name not in others:
            return one
        other = others[one.name]
        evidence = f"{one.evidence}; with changed pixels: {other.evidence}"
        return replace(one, red=one.red or other.red, evidence=evidence)

    return tuple(map(joined, found))


def _renewed(found: tuple[Finding, ...], again: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Returns the first findings with those in their place that were made again, in the first order."""
    newer = {finding.name: finding for finding in again}
    kept = tuple(newer.pop(finding.name, finding) for finding in found)
    return kept + tuple(newer.values())
