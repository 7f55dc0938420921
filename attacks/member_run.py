"""One member at one budget: runs it, and turns whatever happens into numbers."""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.journal import Entry, Journal
from attacks.judging import SELECTION, judge_scores
from attacks.loop import Search, run_search
from attacks.loss_curve import LossCurve
from attacks.objectives import objective_for
from attacks.shell import WorstCase, verify
from attacks.victim import Access
from datasets.batch import Batch
from registry import Member, resolve

_log = logging.getLogger(__name__)


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
    losses: tuple[float, ...] = ()
    """See `attacks.loss_curve.LossCurve`; empty where none of its rows was left unbroken, or it takes no steps."""
    loss_rows: int = 0
    """Rows of their mean."""


FOUND = ("points", "scores", "step")
"""What an entry of the journal holds of the worst case, for the rows that a member changed."""
SPENT = tuple(field.name for field in fields(MemberOutcome) if field.name != "member")
"""What it holds of the outcome."""


class MemberRun:
    """One member at one budget: runs it, and turns whatever happens into numbers.

    Args:
        access: Victim, its faster copy, surrogates.
        batch: All samples.
        ball: Their balls.
        member: The member.
        worst: The worst case so far; lowered here.
        index: Number of this run among all of the worst case.
        rng: Draws of the attack.
    """

    def __init__(self, access: Access, batch: Batch, ball: Ball, member: Member, worst: WorstCase, index: int, rng):
        self.access, self.batch, self.ball = access, batch, ball
        self.member, self.worst, self.index, self.rng = member, worst, index, rng
        self.violations = 0
        self.errors: set[int] = set()
        self.moved = torch.zeros(len(batch), dtype=torch.bool, device=batch.inputs.device)
        self.error: str | None = None
        self.losses: LossCurve | None = None

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
            robust_after=self.batch.mean(worst.scores),
            errors=len([s for s in self.errors if not worst.finished[s]]),
            violations=self.violations,
            unmoved=len(set(alive[~self.moved[alive]].tolist()) - self.errors),
            no_gradient=no_gradient,
            forwards=forwards,
            backwards=backwards,
            seconds=time.perf_counter() - started,
            error=self.error,
            losses=self.losses.means() if self.losses else (),
            loss_rows=self.losses.rows if self.losses else 0,
        )

    def run_or_recall(self, watch: Callable[[float], None], journal: Journal | None) -> MemberOutcome:
        """Runs the member, or takes up what it found before the cell was interrupted.

        Args:
            watch: Told the share of its samples that is done.
            journal: What the cell has done; a run with errors is not kept, since the next one may do better.
        """
        if journal is None:
            return self(watch)
        step, began_with = journal.next_step(), self._fingerprint()
        known = journal.recall(step, began_with)
        if known is not None:
            return self._restored(known)
        outcome = self(watch)
        if not outcome.errors:
            journal.keep(step, began_with, self._entry(outcome))
        return outcome

    def _fingerprint(self) -> str:
        """Returns a checksum of the member, its draws, the samples, their balls and the worst case as they are."""
        card = self.member.card()
        card["options"] = sorted(self.member.options.items())
        facts = (self.index, self.member.name, card, str(self.ball.norm), self.rng.seed, self.rng.stream)
        digest = hashlib.sha256(repr(facts).encode())
        for part in (self.ball.eps, self.batch.sample_ids, self.worst.scores, self.worst.points):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _entry(self, outcome: MemberOutcome) -> Entry:
        """Returns what this run alone changed, and what it spent."""
        rows = (self.worst.member == self.index).nonzero()[:, 0]
        found = {name: getattr(self.worst, name)[rows].cpu() for name in FOUND}
        return {"rows": rows.cpu(), **found, **{name: getattr(outcome, name) for name in SPENT}}

    def _restored(self, entry: Entry) -> MemberOutcome:
        """Puts back what a run like this one changed."""
        worst = self.worst
        rows = entry["rows"].to(worst.points.device)
        for name in FOUND:
            getattr(worst, name)[rows] = entry[name].to(worst.points.device)
        worst.member[rows] = self.index
        spent = self.access.victim.spent
        spent.forwards, spent.backwards = spent.forwards + entry["forwards"], spent.backwards + entry["backwards"]
        spent.no_gradient += entry["no_gradient"]
        outcome = {name: entry[name] for name in SPENT}
        return MemberOutcome(member=self.member, **outcome | {"losses": tuple(entry["losses"])})

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
            self.losses = search.losses

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
