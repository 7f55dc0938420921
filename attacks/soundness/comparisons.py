"""Comparison probes: does an attacker that should lose win against a fresh gradient attack on the same samples?

Nothing is cascaded: every compared attack meets the same samples from scratch. Costly halves of a comparison run only
on the samples where they can still change its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from scipy.stats import binomtest
from torch import Tensor

from attacks.engine import BudgetOutcome
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import Cell, FreshRun, knowledge_of, run_fresh
from attacks.soundness.views import View
from registry import Budget, CellFacts, Knowledge, Member, Need, Randomness

RESTARTS, STEPS = 5, 40
"""Fresh gradient restarts behind each comparison, and the steps of each."""
NOISE_QUERIES = 100
"""Random points of the ball that stand for an attacker without any knowledge."""
LEVEL = 0.01
"""Largest p-value of a red comparison."""
QUERIES = 200
"""Most queries of the black-box attack from scratch, where scores are graded or of noise."""
ELSEWHERE = (Need.TWIN, Need.BARE, Need.MECHANISM)
"""Whose gradients an attack may follow that does not see the judged one; a frozen draw has its own."""
CLEARLY, BEYOND_NOISE = 0.01, 0.2
"""By how much a score must be lower than another to count as the worse one: graded, and as a mean over 100 draws, whose
difference has a standard deviation of 0.07 at most."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two attackers on the same samples."""

    unexpected: int
    """b: samples that only the attacker broke who should not."""
    expected: int
    """c: samples that only the other one broke."""
    n: int
    """Samples of the audit set."""

    @property
    def p_value(self) -> float:
        """One-sided exact McNemar test: b of b + c by a fair coin."""
        both = self.unexpected + self.expected
        return float(binomtest(self.unexpected, both, 0.5, alternative="greater").pvalue) if both else 1.0

    @property
    def enough(self) -> bool:
        """Whether the difference is large enough, whatever its significance: b - c >= max(3, 1 %)."""
        return self.unexpected - self.expected >= max(3, 0.01 * self.n)

    @property
    def red(self) -> bool:
        """Whether the unexpected side wins."""
        return self.enough and self.p_value < LEVEL

    def finding(self, name: str, text: str, errors: str = "", least: int = 0) -> Finding:
        """Returns the comparison as a finding; an attack that failed makes it red, since nothing was compared.

        Args:
            name: Name of the flag.
            text: Who broke what the other did not.
            errors: What went wrong in the runs.
            least: Samples that the unexpected side must break at least.
        """
        counts = f"{self.unexpected} samples against {self.expected} of {self.n}"
        rule = f"p {self.p_value:.2g}; red from a lead of {max(3, round(0.01 * self.n + 0.499))} with p < {LEVEL:g}"
        failed = f"; {errors}" if errors else ""
        return Finding(
            name=name,
            red=bool(errors) or (self.red and self.unexpected >= least),
            evidence=f"{text}: {counts} ({rule}){failed}",
            values={"b": float(self.unexpected), "c": float(self.expected), "n": float(self.n), "p": self.p_value},
        )


def compare(unexpected: Tensor, expected: Tensor, n: int) -> Comparison:
    """Returns the comparison of two attackers by what they broke, bool (k,) each, on k of n audited samples."""
    only = int((unexpected & ~expected).sum())
    return Comparison(unexpected=only, expected=int((expected & ~unexpected).sum()), n=n)


def clear_gap(facts: CellFacts) -> float | None:
    """Returns by how much a score must be lower to count as the worse one; None of 0/1 scores."""
    if facts.randomness is not Randomness.NONE:
        return BEYOND_NOISE
    return CLEARLY if facts.graded else None


class Comparisons:
    """All comparison probes of one view at the ranked budget.

    Of 0/1 scores a side wins a sample that it alone breaks. Graded scores, and the means of noisy ones, seldom cross
    the line of `fail_below`, while an attack fails all the same: there a side wins where its score is clearly lower,
    and a black-box attack runs from scratch, since those of the main run begin where its gradient attacks ended.

    Args:
        cell: The evaluated cell.
        view: The gradient that is judged.
        objectives: What the gradient attacks ascend.
        rows: int64 (n,), places of the audit set in the cell.
        salt: Number that keeps the draws of two examinations apart.
    """

    def __init__(self, cell: Cell, view: View, objectives: tuple[str, ...], rows: Tensor, salt: int = 0) -> None:
        self._cell, self._view, self._objectives, self._rows = cell, view, objectives, rows
        self._salt = 100 * salt
        self._graded, self._gap = cell.facts.graded, clear_gap(cell.facts)
        members = view.members(cell.facts, objectives, STEPS, RESTARTS)
        self.runs: list[tuple[Tensor, FreshRun]] = []
        """Places and results of every run at the ranked budget."""
        self.fresh: FreshRun = self._run(members, rows, 0)
        """The fresh gradient attack on the audit set."""
        self.said = f"{RESTARTS} fresh restarts of {STEPS} APGD steps ({view.name})"
        """The fresh gradient attack in words."""

    def findings(self, main: BudgetOutcome) -> tuple[Finding, ...]:
        """Returns all comparisons.

        Args:
            main: What the protocol did at the ranked budget, on all samples of the cell.
        """
        noise = self.noise_beats_gradient()
        several = (self.black_box(main), noise, self.one_step_beats_many(), self.not_monotone())
        return tuple(finding for finding in several if finding is not None)

    def black_box(self, main: BudgetOutcome) -> Finding:
        """Compares what black-box members broke in the main run with the fresh restarts on exactly those samples.

        The main run lets a black-box member meet only what its gradient attacks left, so the samples compared are
        those that a black-box member broke (at this or a smaller budget) and those that survived everything. On them
        the fresh gradient attack starts from nothing, as if the main run had never been: the comparison is not
        cascaded with respect to it. Members that follow another model's gradient count as black-box, unless it is
        theirs that the view follows.
        """
        own = self._cell.protocol.ensemble(self._cell.facts, self._cell.budget)
        searched = [member for member in own if "queries" in member.options and member.source == "victim"]
        if self._gap is not None and searched:
            return self._black_box_from_scratch(searched[0], own)
        names = black_boxes((m.member for m in main.members), self._view.source)
        rows = self._rows.tolist()
        fail_below = self._view.access.victim.task.fail_below
        broken = main.scores[self._rows] < fail_below
        theirs = torch.tensor([main.found_by[row] in names for row in rows], device=broken.device) & broken
        met = theirs | ~broken
        result = compare(theirs[met], self.fresh.broken[met], len(rows))
        who = ", ".join(sorted(names)) or "no black-box member"
        text = f"{who} broke what {self.said} did not"
        return result.finding("black-box-beats-white-box", text, self.fresh.errors)

    def _black_box_from_scratch(self, searched: Member, own: tuple[Member, ...]) -> Finding:
        """Compares what follows other models and a score-based member of few queries, all begun at the originals, with
        the fresh restarts.

        Args:
            searched: The score-based member.
            own: The protocol's members; what an escalation tried follows models that this view may not have.
        """
        queries = min(QUERIES, int(searched.options["queries"]))
        others = [member for member in own if member.source in ELSEWHERE and member.source != self._view.source]
        few = replace(searched, options={**searched.options, "queries": queries})
        run = self._run((*others, few), self._rows, 7)
        who = "".join(f"{member.name}, " for member in others)
        text = f"{who}{queries} queries of {searched.name} lowered clearly what {self.said} did not"
        return self._compare(run, self.fresh).finding("black-box-beats-white-box", text, run.errors)

    def noise_beats_gradient(self) -> Finding:
        """Compares random search in the ball with the fresh restarts; red only from 5 breaks."""
        options, first = {"queries": NOISE_QUERIES}, self._objectives[0]
        noise = Member(name="noise", attack="attacks.random_search:RandomSearch", options=options, objective=first)
        run = self._run((noise,), self._rows, 1)
        result = self._compare(run, self.fresh)
        text = f"{NOISE_QUERIES} random points broke what {self.said} did not"
        return result.finding("noise-beats-gradient", text, run.errors, least=5)

    def one_step_beats_many(self) -> Finding:
        """Compares FGSM with 20 steps of PGD from the same place; PGD first meets only what FGSM broke."""
        one = self._run((self._fixed_steps("attacks.gradient:fgsm", {}),), self._rows, 2)
        options = {"steps": 20, "random_start": False}
        many = (self._fixed_steps("attacks.gradient:PGD", options),)
        result, errors = self._against(one, many, 3)
        text = "one step of FGSM broke what 20 steps of PGD did not"
        return result.finding("one-step-beats-many", text, "; ".join(filter(None, (one.errors, errors))))

    def not_monotone(self) -> Finding | None:
        """Compares the fresh restarts with the same attack on its own at the next larger budget."""
        larger = [b for b in self._cell.protocol.budgets if b.size > self._cell.budget.size]
        if not larger:
            return None
        members = self._view.members(self._cell.facts, self._objectives, STEPS, RESTARTS)
        result, errors = self._against(self.fresh, members, 4, larger[0])
        text = f"{self.said} broke at {self._cell.budget.label} what they did not at {larger[0].label}"
        return result.finding("not-monotone", text, errors)

    def _compare(self, unexpected: FreshRun, expected: FreshRun) -> Comparison:
        """Returns the comparison of two runs on the audit set, sample by sample."""
        if self._gap is None:
            return compare(unexpected.broken, expected.broken, len(self._rows))
        gap = expected.scores - unexpected.scores
        return compare(gap > self._gap, gap < -self._gap, len(self._rows))

    def _against(
        self, run: FreshRun, members: tuple[Member, ...], salt: int, budget: Budget | None = None
    ) -> tuple[Comparison, str]:
        """Compares with attacks that first meet only what the unexpected side broke, and the rest where it matters.

        Of graded scores nothing is broken for good: all samples meet them.
        """
        if self._graded:
            other = self._run(members, self._rows, salt, budget)
            return self._compare(run, other), other.errors
        unexpected = run.broken
        broken = torch.zeros_like(unexpected)
        errors: list[str] = []
        for rows in (unexpected, ~unexpected):
            if rows.any():
                run = self._run(members, self._rows[rows], salt, budget)
                broken[rows] = run.broken
                errors.append(run.errors)
            result = compare(unexpected, broken, len(self._rows))
            if not result.red:
                break
        return result, "; ".join(filter(None, errors))

    def _run(self, members: tuple[Member, ...], rows: Tensor, salt: int, budget: Budget | None = None) -> FreshRun:
        run = run_fresh(self._cell, self._view.access, rows, members, salt=self._salt + salt, budget=budget)
        if budget is None:
            self.runs.append((rows, run))
        return run

    def _fixed_steps(self, attack: str, options: dict[str, object]) -> Member:
        if self._view.eot_samples > 1:
            options = {**options, "eot_samples": self._view.eot_samples}
        view = self._view
        return Member(
            name="steps",
            attack=attack,
            options=options,
            objective=self._objectives[0],
            source=view.source,
            backward=view.backward,
        )


def black_boxes(members: Iterable[Member], source: str) -> frozenset[str]:
    """Returns the names of members that do not follow the judged gradient.

    Args:
        members: What ran.
        source: Whose gradient is judged; a full-precision copy of the victim has the victim's.
    """
    judged = ("victim", "exact", source)
    return frozenset(m.name for m in members if m.source not in judged or knowledge_of(m) is not Knowledge.WHITE_BOX)
