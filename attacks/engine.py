"""Runs a protocol's members over a set of samples, budget after budget, and keeps the worst case of each sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from attacks.ball import ball_for, support_mask, whole_box
from attacks.draws import KeyedRandom
from attacks.journal import Journal
from attacks.judging import FINAL, SELECTION, at_turn, judge_scores
from attacks.member_run import MemberOutcome, MemberRun
from attacks.shell import LastPoint, WorstCase, admit_inputs
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from registry import AttackProtocol, Budget, CellFacts, Randomness, ThreatKind

Watch = Callable[[float, str], None]
"""Told the share of a cell that is done, and what is running."""


@dataclass(frozen=True, kw_only=True)
class BudgetOutcome:
    """The worst case of each sample at one budget."""

    budget: Budget
    scores: Tensor
    """float32 (n,): worst score; of a stochastic victim on fresh draws."""
    points: Tensor
    """float32 (n, ...): the worst inputs; the original where nothing lowered its score."""
    found_by: tuple[str, ...]
    """(n,): name of the member that found it, "" for none."""
    step: Tensor
    """int64 (n,): step at which it was found, -1 for none."""
    members: tuple[MemberOutcome, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a protocol did to a set of samples."""

    clean_scores: Tensor
    """float32 (n,): scores of the originals."""
    budgets: tuple[BudgetOutcome, ...]


def run_protocol(
    access: Access,
    batch: Batch,
    protocol: AttackProtocol,
    facts: CellFacts,
    *,
    seed: int = 0,
    watch: Watch | None = None,
    journal: Journal | None = None,
) -> Outcome:
    """Attacks every sample at every budget, in ascending order.

    A sample that is finished at one budget stays so at larger ones, with the same adversarial; any other sample's worst
    candidate is where the next budget begins. A stochastic victim's is measured again there, on the draws on which that
    budget selects. Without a cascade every budget begins at the originals, and the score of a sample is the one at the
    attack's last point, even where it is above the clean one.

    Args:
        access: Victim, its faster copy, surrogates.
        batch: All samples.
        protocol: Threat model, budgets, members.
        facts: What the members depend on.
        seed: Seed of all draws.
        watch: Told how far it is.
        journal: What the cell has done before it was interrupted; kept up to date.

    Raises:
        InputContractError: Inputs are not float32 in [0, 1].
    """
    admit_inputs(batch)
    victim = access.victim
    watch = watch or (lambda share, text: None)
    stochastic = victim.randomness is not Randomness.NONE
    clean = judge_scores(victim, batch, FINAL)
    if protocol.threat_model.kind is ThreatKind.CLEAN:
        watch(1.0, "clean")
        return Outcome(clean_scores=clean, budgets=())
    start = judge_scores(victim, batch, SELECTION) if stochastic else clean
    worst = WorstCase(batch.inputs, start, -1.0 if stochastic else victim.task.stop_at)
    names: list[str] = []
    outcomes = []
    for index, budget in enumerate(protocol.budgets):
        share = _Share(watch, index, len(protocol.budgets), budget)
        if not protocol.cascades:
            worst = LastPoint(batch.inputs, start)
        elif stochastic and index:
            access = replace(access, victim=at_turn(victim, index))
            _measure_again(worst, batch, access.victim)
        members = _run_budget(access, batch, protocol, facts, budget, worst, names, seed, share, journal)
        scores = judge_scores(victim, batch.with_inputs(worst.points), FINAL) if stochastic else worst.scores
        outcomes.append(
            BudgetOutcome(
                budget=budget,
                scores=scores.clone(),
                points=worst.points.clone(),
                found_by=tuple(names[m] if m >= 0 else "" for m in worst.member.tolist()),
                step=worst.step.clone(),
                members=tuple(members),
            )
        )
    return Outcome(clean_scores=clean, budgets=tuple(outcomes))


def _measure_again(worst: WorstCase, batch: Batch, judge: ModelVictim) -> None:
    """Replaces the scores of a stochastic victim's carried points: the lowest of many was a lucky one.

    A point on which the model now returns NaN keeps the score that it had.
    """
    scores = judge_scores(judge, batch.with_inputs(worst.points), SELECTION)
    worst.scores = scores.where(~scores.isnan(), worst.scores)


def _run_budget(access, batch, protocol, facts, budget, worst, names, seed, share, journal) -> list[MemberOutcome]:
    """Runs the members of one budget, each on what survives the ones before it."""
    if protocol.threat_model.kind is ThreatKind.CORRUPTION:
        ball = whole_box(batch.inputs)
    else:
        mask = support_mask(protocol.threat_model, batch.inputs, batch.targets.get("mask"))
        ball = ball_for(protocol.threat_model, budget, batch.inputs, support=mask)
    members = protocol.ensemble(facts, budget)
    outcomes = []
    for place, member in enumerate(members):
        names.append(member.name)
        rng = KeyedRandom(seed=seed, stream=2 + len(names))
        run = MemberRun(access, batch, ball, member, worst, len(names) - 1, rng)
        outcomes.append(run.run_or_recall(share.of(place, len(members), member.name), journal))
    return outcomes


class _Share:
    """Turns a member's progress into the cell's."""

    def __init__(self, watch: Watch, index: int, budgets: int, budget: Budget) -> None:
        self._watch, self._index, self._budgets, self._budget = watch, index, budgets, budget

    def of(self, place: int, members: int, name: str) -> Callable[[float], None]:
        """Returns what a member reports its share to."""

        def tell(share: float) -> None:
            done = (self._index + (place + share) / members) / self._budgets
            self._watch(done, f"{self._budget.label} {name}")

        return tell
