"""The loop that feeds a stepped attack: continuous batching over fixed slots, confirmation, accounting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.candidates import Candidates
from attacks.draws import KeyedRandom
from attacks.loss_curve import LossCurve
from attacks.queries import Draws, Objective
from attacks.shell import WorstCase, verify, verify_free
from attacks.stepped import Rows, SteppedAttack, join_rows
from attacks.victim import ModelVictim
from datasets.batch import Batch
from registry import Knowledge, Randomness


@dataclass(kw_only=True)
class Search:
    """One member's search over a set of samples at one budget."""

    attack: SteppedAttack
    """The attack."""
    objective: Objective
    """What it ascends."""
    source: ModelVictim
    """Whose objective and gradient it follows: the victim (or its prepared copy), or a surrogate."""
    scorer: ModelVictim
    """Who tells the score of a point: the victim or its prepared copy."""
    judge: ModelVictim
    """The unprepared victim: only its score counts."""
    batch: Batch
    """All samples of the cell."""
    ball: Ball
    """Balls around them."""
    clean_outputs: object
    """Outputs of the source on the originals; goals of targeted objectives are chosen from them."""
    worst: WorstCase
    """What is known of each sample; updated in place."""
    rng: KeyedRandom
    """Keyed by protocol, seed and member."""
    backward: str = "true"
    """"true" or "bpda"."""
    pooled: bool = False
    """Average the probabilities of a stochastic victim's draws."""
    member: int = 0
    """Index of the member, for attribution."""
    watch: Callable[[float], None] = lambda share: None
    """Told the share of the work that is done."""
    violations: int = 0
    """Candidates that had to be moved back into the ball."""
    error_samples: set[int] = field(default_factory=set)
    """Samples on which the model or the attack returned NaN."""
    moved: Tensor = field(init=False)
    """bool (n,): samples for which the attack proposed anything but the original."""
    losses: LossCurve = field(init=False)
    """The objective over its steps."""

    def __post_init__(self) -> None:
        self.moved = torch.zeros(len(self.batch), dtype=torch.bool, device=self.batch.inputs.device)
        self.losses = LossCurve(self.attack.steps)


def run_search(search: Search, samples: Tensor) -> None:
    """Runs a stepped attack on the samples (int64 rows of the set), restart after restart.

    A row leaves its slot when its sample is finished or its budget is spent; the next one takes the slot. Random
    weights (`randomness="model"`) go in lockstep: new rows enter only when all slots are free.
    """
    attack, slots = search.attack, search.judge.slots
    queue = deque((int(sample), restart) for restart in range(attack.restarts) for sample in samples)
    total, rows = len(queue), None
    lockstep = search.judge.randomness is Randomness.MODEL
    candidates = Candidates(
        judge=search.judge,
        scorer=search.scorer,
        batch=search.batch,
        worst=search.worst,
        member=search.member,
        error_samples=search.error_samples,
        keeps_last=search.judge.randomness is not Randomness.NONE and attack.knowledge is Knowledge.WHITE_BOX,
    )
    while True:
        if rows is not None:
            rows = _stay(search, rows, candidates)
        if rows is None or (len(rows) < slots and queue and not (lockstep and len(rows))):
            rows = _refill(search, rows, queue, slots, candidates)
        if not len(rows):
            break
        _advance(search, rows, candidates)
        search.watch(1 - (len(queue) + len(rows)) / max(total, 1))
    candidates.finish()


def _stay(search: Search, rows: Rows, candidates: Candidates) -> Rows:
    """Returns the rows whose sample is not finished and whose budget is not spent."""
    given_up = search.worst.finished[rows.sample]
    if search.error_samples:
        given_up |= torch.tensor([int(s) in search.error_samples for s in rows.sample], device=given_up.device)
    leave = rows.done | given_up
    if not leave.any():
        return rows
    search.losses.leave(rows, rows.done & ~given_up)
    candidates.leave(rows, leave)
    return rows.take(~leave)


def _refill(search: Search, rows: Rows | None, queue: deque, slots: int, candidates: Candidates) -> Rows:
    """Returns the rows in flight with free slots filled from the queue."""
    free = slots - (0 if rows is None else len(rows))
    finished = search.worst.finished
    chosen: list[tuple[int, int]] = []
    lockstep = search.judge.randomness is Randomness.MODEL
    while queue and len(chosen) < free:
        if lockstep and chosen and queue[0][1] != chosen[0][1]:
            break  # restarts have draws of their own, and random weights are one draw for the whole batch
        sample, restart = queue.popleft()
        if not finished[sample] and sample not in search.error_samples:
            chosen.append((sample, restart))
    device = search.batch.inputs.device
    sample = torch.tensor([s for s, _ in chosen], dtype=torch.int64, device=device)
    restart = torch.tensor([r for _, r in chosen], dtype=torch.int64, device=device)
    batch = search.batch.take(sample)
    if hasattr(search.objective, "aim") and chosen:
        outputs = search.clean_outputs
        outputs = {k: v[sample] for k, v in outputs.items()} if isinstance(outputs, dict) else outputs[sample]
        batch = search.objective.aim(outputs, batch, restart)
    fresh = Rows(
        batch=batch,
        ball=search.ball.take(sample),
        begin=search.worst.points[sample],
        restart=restart,
        sample=sample,
        step=torch.zeros_like(sample),
        done=torch.zeros_like(sample, dtype=torch.bool),
    )
    if not chosen:
        return fresh if rows is None else rows
    search.attack.start(fresh, search.rng)
    candidates.begin(fresh)
    search.losses.begin(fresh)
    return fresh if rows is None or not len(rows) else join_rows(rows, fresh)


def _advance(search: Search, rows: Rows, candidates: Candidates) -> None:
    """Lets all rows take one step: ask, verify, answer, offer, tell."""
    attack = search.attack
    query = attack.ask(rows, search.rng)
    ball, batch = search.ball.take(rows.sample), search.batch.take(rows.sample)  # the attack may write into its own
    if query.free:
        checked, counted = verify_free(query.points, ball)
    else:
        checked, counted = verify(query.points, ball), torch.ones_like(rows.done)
    search.violations += checked.violations
    if not search.moved[rows.sample].all():
        search.moved[rows.sample] |= (checked.points != ball.originals).flatten(1).any(1)
    if query.counts is not None:
        counted = counted & query.counts
    batch = batch.with_inputs(checked.points)
    if "goal" in rows.batch.targets:
        batch = batch.with_target("goal", rows.batch.targets["goal"])
    progress = rows.step / max(attack.steps, 1)
    draws = _draws(search, rows)
    wants_gradient = query.gradient and attack.knowledge is Knowledge.WHITE_BOX
    answer = search.source.answer(
        batch, search.objective, progress, gradient=wants_gradient, backward=search.backward, draws=draws
    )
    if search.scorer is not search.source:
        score = search.scorer.answer(batch, _nothing, progress, gradient=False, draws=draws).score
        answer = answer._replace(score=score)
    failed = checked.broken_rows | ~torch.isfinite(answer.objective + answer.score)
    if failed.any():
        search.error_samples.update(rows.sample[failed].tolist())
    rows.step = rows.step + 1
    candidates.add(rows, checked.points, answer, counted & ~failed)
    search.losses.add(rows, answer.objective)
    attack.tell(rows, query._replace(points=checked.points), answer)
    if wants_gradient and query.counts is None and search.judge.randomness is Randomness.NONE:
        rows.candidate["sloped"] |= answer.gradient.flatten(1).abs().amax(1) > 0
        rows.done = rows.done | _stuck(search, rows, checked.points)


def _nothing(outputs, batch: Batch, progress: Tensor) -> Tensor:
    """The objective of a query that is asked for its score alone."""
    return torch.zeros_like(progress)


def _stuck(search: Search, rows: Rows, points: Tensor) -> Tensor:
    """Returns which rows will learn nothing more: no gradient ever was above zero, and their next point is the same.

    One that has left a slope for a plateau may go back to it: Auto-PGD does.
    """
    flat = ~rows.candidate["sloped"]
    if not flat.any():
        return flat
    following = search.attack.ask(rows, search.rng).points
    return flat & (following == points).flatten(1).all(1)


def _draws(search: Search, rows: Rows) -> Draws | None:
    """Returns fresh draws for every step: their index is unique to the restart and the step."""
    if search.judge.randomness is Randomness.NONE:
        return None
    count = search.attack.eot_samples
    return Draws((rows.restart * (search.attack.steps + 1) + rows.step + 1) * count, count, search.pooled)
