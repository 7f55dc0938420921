"""Runs beside a protocol's own: attacks from scratch, on chosen samples, that share nothing with the main run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.engine import Watch, run_protocol
from attacks.journal import Journal
from attacks.judging import AGAIN, judge_scores
from attacks.member_run import MemberOutcome
from attacks.stepped import Rows, SteppedAttack
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from registry import AttackProtocol, Budget, CellFacts, Knowledge, Member, Randomness, resolve

FRESH = 1_000_003
"""Distance of the seeds of fresh runs from the cell's own."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What every fresh run of one evaluation shares."""

    batch: Batch
    """All samples of the cell."""
    protocol: AttackProtocol
    """Whose threat model holds."""
    facts: CellFacts
    """What the cell is."""
    budget: Budget
    """The ranked budget."""
    seed: int = 0
    """Seed of the cell's attacks."""
    journal: Journal | None = None
    """What the cell has done before it was interrupted; kept up to date."""
    watch: Watch | None = None
    """Told how far a fresh run is, and which attack runs."""


@dataclass(frozen=True, kw_only=True)
class FreshRun:
    """What attacks did from scratch, sample by sample."""

    scores: Tensor
    """float32 (n,): worst score."""
    points: Tensor
    """float32 (n, ...): worst inputs."""
    broken: Tensor
    """bool (n,): the worst score is under the task's `fail_below`."""
    found_by: tuple[str, ...]
    """(n,): name of the member that found it, "" for none."""
    step: Tensor
    """int64 (n,): step at which it was found."""
    members: tuple[MemberOutcome, ...]
    """What each attack spent."""

    @property
    def errors(self) -> str:
        """What went wrong, for evidence; empty where nothing did."""
        bad = [f"{m.member.name}: {m.errors} errors" for m in self.members if m.errors or m.error]
        return "; ".join(bad)


def run_fresh(
    cell: Cell,
    access: Access,
    rows: Tensor,
    members: tuple[Member, ...],
    *,
    salt: int,
    budget: Budget | None = None,
    starts: Tensor | None = None,
) -> FreshRun:
    """Attacks some samples of a cell from scratch: every sample meets the members until one of them breaks it.

    Args:
        cell: The cell.
        access: Victim, search model, surrogates.
        rows: int64 (n,), places of the samples in the cell.
        members: The attacks, in order.
        salt: Number that keeps the random draws of different runs apart.
        budget: The cell's by default.
        starts: (n, ...), where restart 0 begins; they are moved into the ball first.
    """
    budget = budget or cell.budget
    if starts is not None:
        members = tuple(_starting(member, starts) for member in members)
    protocol = AttackProtocol(
        name="fresh",
        title="Attacks from scratch",
        threat_model=cell.protocol.threat_model,
        budgets=(budget,),
        tasks=cell.protocol.tasks,
        members=lambda facts, at: members,
    )
    seed = cell.seed + FRESH * (1 + salt)
    told = {"seed": seed, "watch": cell.watch, "journal": cell.journal}
    outcome = run_protocol(access, cell.batch.take(rows), protocol, cell.facts, **told)
    result = outcome.budgets[0]
    return FreshRun(
        scores=result.scores,
        points=result.points,
        broken=result.scores < access.victim.task.fail_below,
        found_by=result.found_by,
        step=result.step,
        members=result.members,
    )


def worse(victim: ModelVictim, batch: Batch, known: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Tensor:
    """Returns which new candidates are worse for the model than the known ones: bool (n,).

    Final scores of a stochastic model are never compared with each other, since the minimum of two noisy means is lower
    than either truth. Nor are those on which a run has selected its candidate: both are measured again, on draws of
    their own.

    Args:
        victim: The victim.
        batch: The samples.
        known: Points and their scores.
        new: Points and their scores.
    """
    if victim.randomness is Randomness.NONE:
        return new[1] < known[1]
    turns = _turns(victim, known[0], new[0])
    scores = [judge_scores(victim, batch.with_inputs(points), AGAIN, turns) for points in (new[0], known[0])]
    return scores[0] < scores[1]


def _turns(victim: ModelVictim, known: Tensor, new: Tensor) -> Tensor:
    """Returns the range of draws on which each pair of points is compared: int64 (n,), under 2 ** 24.

    It depends on nothing but the two points, so that a known one which was lucky against one candidate meets the next
    one on other draws, whatever else is compared. Random weights are one draw for all rows: they have one range.
    """
    if victim.randomness is Randomness.MODEL:
        return torch.zeros(len(new), dtype=torch.int64, device=new.device)
    pairs = zip(known.cpu().numpy(), new.cpu().numpy(), strict=True)
    digests = [hashlib.sha256(one.tobytes() + other.tobytes()).digest() for one, other in pairs]
    return torch.tensor([int.from_bytes(digest[:3], "big") for digest in digests], dtype=torch.int64, device=new.device)


def knowledge_of(member: Member) -> Knowledge:
    """Returns what a member's attack needs to see; one that cannot be built found nothing and counts as white-box."""
    try:
        return resolve(member.attack)(**member.options).knowledge
    except Exception:  # its own run has reported the error
        return Knowledge.WHITE_BOX


class StartingAt:
    """A stepped attack whose first run begins at given points instead of the worst known candidate.

    Args:
        attack: The attack.
        points: (n, ...), one for each sample of the run; they are moved into the ball first.
    """

    def __init__(self, attack: SteppedAttack, points: Tensor) -> None:
        self._attack, self._points = attack, points
        self.knowledge, self.steps = attack.knowledge, attack.steps
        self.restarts, self.eot_samples = attack.restarts, attack.eot_samples

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        rows.begin = rows.ball.project(self._points[rows.sample])
        self._attack.start(rows, rng)

    def ask(self, rows: Rows, rng: KeyedRandom):
        return self._attack.ask(rows, rng)

    def tell(self, rows: Rows, query, answer) -> None:
        self._attack.tell(rows, query, answer)


def _starting(member: Member, points: Tensor) -> Member:
    attack: Callable = resolve(member.attack)
    return replace(member, attack=lambda **options: StartingAt(attack(**options), points))


def audit_rows(batch: Batch, clean_scores: Tensor, fail_below: float, most: int) -> Tensor:
    """Returns the places of the clean-correct samples with the lowest ids, at most so many: int64 (n,), ascending.

    Ids, not places: the audit set of a cell does not depend on the order of its samples.
    """
    correct = (clean_scores >= fail_below).nonzero()[:, 0]
    chosen = correct[batch.sample_ids[correct].argsort()[:most]]
    return chosen.sort().values
