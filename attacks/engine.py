"""Runs a protocol's members over a set of samples, budget after budget, and keeps the worst case of each sample."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball, ball_for, support_mask, whole_box
from attacks.draws import KeyedRandom
from attacks.judging import FINAL, SELECTION, judge_scores
from attacks.loop import Search, run_search
from attacks.objectives import objective_for
from attacks.shell import LastPoint, WorstCase, admit_inputs, verify
from attacks.victim import Access
from datasets.batch import Batch
from registry import AttackProtocol, Budget, CellFacts, Member, Randomness, ThreatKind, resolve

_log = logging.getLogger(__name__)

Watch = Callable[[float, str], None]
"""Told the share of a cell that is done, and what is running."""


@dataclass(frozen=True, kw_only=True)
class MemberOutcome:
    """What one member did at one budget, on the samples that were alive when its turn came."""

    member: Member
    attempted: int
    lowered: int
    broken: int
    robust_after: float
    errors: int
    violations: int
    unmoved: int
    """Samples for which it proposed nothing but the original."""
    no_gradient: int
    forwards: int
    backwards: int
    seconds: float
    error: str | None


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
) -> Outcome:
    """Attacks every sample at every budget, in ascending order.

    A sample that is finished at one budget stays so at larger ones, with the same adversarial; any other sample's worst
    candidate is where the next budget begins. Without a cascade every budget begins at the originals, and the score of
    a sample is the one at the attack's last point, even where it is above the clean one.

    Args:
        access: Victim, its faster copy, surrogates.
        batch: All samples.
        protocol: Threat model, budgets, members.
        facts: What the members depend on.
        seed: Seed of all draws.
        watch: Told how far it is.

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
        members = _run_budget(access, batch, protocol, facts, budget, worst, names, seed, share)
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


def _run_budget(access, batch, protocol, facts, budget, worst, names, seed, share) -> list[MemberOutcome]:
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
        run = _MemberRun(access, batch, ball, member, worst, len(names) - 1, rng)
        outcomes.append(run(share.of(place, len(members), member.name)))
    return outcomes


class _MemberRun:
    """One member at one budget: runs it, and turns whatever happens into numbers."""

    def __init__(self, access: Access, batch: Batch, ball: Ball, member: Member, worst: WorstCase, index: int, rng):
        self.access, self.batch, self.ball = access, batch, ball
        self.member, self.worst, self.index, self.rng = member, worst, index, rng
        self.violations = 0
        self.errors: set[int] = set()
        self.moved = torch.zeros(len(batch), dtype=torch.bool, device=batch.inputs.device)
        self.error: str | None = None

    def __call__(self, watch: Callable[[float], None]) -> MemberOutcome:
        """Runs the member on all unfinished samples."""
        task, worst = self.access.victim.task, self.worst
        alive = (~worst.finished).nonzero()[:, 0]
        before, broken_before = worst.scores.clone(), worst.scores < task.fail_below
        spent = self._spent()
        started = time.perf_counter()
        try:
            self._attack(alive, watch)
        except torch.OutOfMemoryError:  # no fault of the attack: the cell begins again with fewer slots
            raise
        except Exception:  # whatever an attack does, its samples are errors, never robust
            self.error = self.error or traceback.format_exc()
            self.errors.update(alive[~worst.finished[alive]].tolist())
            _log.warning("member %s failed: %s", self.member.name, self.error.strip().splitlines()[-1])
        watch(1.0)
        forwards, backwards, no_gradient = (a - b for a, b in zip(self._spent(), spent, strict=True))
        return MemberOutcome(
            member=self.member,
            attempted=len(alive),
            lowered=int((worst.scores < before).sum()),
            broken=int(((worst.scores < task.fail_below) & ~broken_before).sum()),
            robust_after=float(worst.scores.mean()) if len(before) else 0.0,
            errors=len([s for s in self.errors if not worst.finished[s]]),
            violations=self.violations,
            unmoved=len(set(alive[~self.moved[alive]].tolist()) - self.errors),
            no_gradient=no_gradient,
            forwards=forwards,
            backwards=backwards,
            seconds=time.perf_counter() - started,
            error=self.error,
        )

    def _attack(self, alive: Tensor, watch: Callable[[float], None]) -> None:
        attack = resolve(self.member.attack)(**self.member.options)
        if hasattr(attack, "run"):
            self._run_simple(attack, alive, watch)
            return
        if hasattr(attack, "see"):  # it mixes other images of the set into its own
            attack.see(self.batch)
        source = self.access.source(self.member.source)
        search = Search(
            attack=attack,
            objective=objective_for(self.access.victim.task, self.member.objective),
            source=source,
            scorer=source if self.member.source == "exact" else self.access.search,
            judge=self.access.victim,
            batch=self.batch,
            ball=self.ball,
            clean_outputs=source.outputs(self.batch) if len(alive) else None,
            worst=self.worst,
            rng=self.rng,
            backward=self.member.backward,
            pooled=self.member.pooled,
            member=self.index,
            watch=watch,
        )
        try:
            run_search(search, alive)
        finally:
            self.violations, self.errors, self.moved = search.violations, search.error_samples, search.moved

    def _run_simple(self, attack, alive: Tensor, watch: Callable[[float], None]) -> None:
        """Runs an attack that takes whole batches; one that raises loses its batch only."""
        slots = self.access.victim.slots
        for start in range(0, len(alive), slots):
            rows = alive[start : start + slots]
            batch, ball = self.batch.take(rows), self.ball.take(rows)
            try:  # the attack gets copies of its own, which it may write into
                points = attack.run(self.access, self.batch.take(rows), self.ball.take(rows), self.rng)
                checked = verify(points, ball)
            except torch.OutOfMemoryError:
                raise
            except Exception:
                self.error = self.error or traceback.format_exc()
                self.errors.update(rows.tolist())
                continue
            self.violations += checked.violations
            self.moved[rows] = (checked.points != ball.originals).flatten(1).any(1)
            scores = judge_scores(self.access.victim, batch.with_inputs(checked.points), SELECTION)
            self.errors.update(rows[checked.broken_rows | scores.isnan()].tolist())
            self.worst.offer(rows, checked.points, scores, self.index, torch.zeros_like(rows))
            watch(min(1.0, (start + slots) / len(alive)))

    def _spent(self) -> tuple[int, int, int]:
        counters = {
            id(v.spent): v.spent for v in (self.access.victim, self.access.search, *self.access.surrogates.values())
        }
        every = counters.values()
        return sum(s.forwards for s in every), sum(s.backwards for s in every), sum(s.no_gradient for s in every)


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
