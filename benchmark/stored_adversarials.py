"""Certificates of attack: what the attacks found, in the coarsest form that does as well on the unprepared victim.

A record's scores are those of the adversarials as they are stored, so that anyone can recompute them without attacking.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attacks.ball import Ball, ball_for, support_mask
from attacks.engine import BudgetOutcome, Outcome
from attacks.judging import FINAL, SELECTION, judge_scores
from attacks.victim import ModelVictim, Spent
from datasets.batch import Batch
from registry import AttackProtocol, Budget, Norm, Randomness, ThreatModel, linf
from results.adversarials import EXACT, Adversarials, quantise
from results.budgets import as_budget
from results.statistics import is_binary

FORMS = ((1, True), (1, False), (3, False), (7, False), (15, False), (31, False), (127, False))
"""Level and rounding (outward or not) of the forms that are tried, the shortest first; after them: exact values."""


def certify(
    victim: ModelVictim, batch: Batch, protocol: AttackProtocol, outcome: Outcome, ranked: Budget
) -> tuple[Outcome, Adversarials | None]:
    """Returns the outcome with its points and scores as they are stored, and the adversarials to store.

    An adversarial is kept in a coarser form only where that scores no higher; where it scores lower, so does the
    record. 0/1 scores of a deterministic victim have certificates at all budgets, since a broken sample is broken at
    every larger one; others at the budgets of full effort, which `certified` names. A stochastic victim's forms are
    chosen on the draws of selection and scored on the final ones, as everything else.

    Args:
        victim: The unprepared victim.
        batch: The evaluated samples.
        protocol: Threat model and budgets.
        outcome: What the protocol did.
        ranked: The data set's ranked budget.

    Returns:
        None instead of adversarials where nobody attacked, and of protocols that do not cascade: their scores are no
        bounds of anything, and what they replay is deterministic.
    """
    if not outcome.budgets or not protocol.cascades:
        return outcome, None
    certified = certified_budgets(victim, outcome, ranked)
    book = _Book(victim, batch, protocol.threat_model, outcome.clean_scores)
    budgets = []
    for index, found in enumerate(outcome.budgets):
        budgets.append(book.enter(index, found) if index in certified else book.carry(found))
    return replace(outcome, budgets=tuple(budgets)), book.adversarials(certified)


def certified_budgets(victim: ModelVictim, outcome: Outcome, ranked: Budget) -> tuple[int, ...]:
    """Returns the indices of the budgets that get certificates, see `certify`."""
    every = tuple(range(len(outcome.budgets)))
    scores = [outcome.clean_scores, *(found.scores for found in outcome.budgets)]
    if victim.randomness is Randomness.NONE and all(is_binary(values.cpu().numpy()) for values in scores):
        return every
    full = {as_budget(ranked), as_budget(linf(4 / 255))}
    return tuple(index for index in every if as_budget(outcome.budgets[index].budget) in full) or every


def stored_points(adversarials: Adversarials, batch: Batch, ball: Ball) -> Tensor:
    """Returns adversarials as they are evaluated: coarse ones projected into the ball and [0, 1], exact ones as kept.

    Args:
        adversarials: (m,) of them.
        batch: The sample of each one, (m,).
        ball: The ball of each one.
    """
    originals = batch.inputs.cpu()
    points = torch.from_numpy(adversarials.points(originals.numpy().copy(), ball.eps.cpu().numpy()))
    points = points.to(batch.inputs.device)
    exact = torch.from_numpy(adversarials.levels == EXACT).to(points.device)
    return torch.where(exact.reshape(-1, *[1] * (points.ndim - 1)), points, ball.project(points))


def balls(threat_model: ThreatModel, budget: Budget, batch: Batch) -> Ball:
    """Returns the balls of a batch, with eps rounded as records keep it."""
    mask = support_mask(threat_model, batch.inputs, batch.targets.get("mask"))
    return ball_for(threat_model, as_budget(budget), batch.inputs, support=mask)


def take(adversarials: Adversarials, places: Iterable[int]) -> Adversarials:
    """Returns the adversarials at these places, in this order."""
    chosen = np.array(list(places), dtype=np.int64)
    exact = {new: adversarials.exact[int(old)] for new, old in enumerate(chosen) if int(old) in adversarials.exact}
    parts = {
        name: getattr(adversarials, name)[chosen] for name in ("sample_ids", "budgets", "levels", "scales", "steps")
    }
    return replace(adversarials, **parts, exact=exact)


@dataclass
class _Held:
    """What is stored of each sample so far: the original and its clean score where nothing is."""

    points: Tensor
    scores: Tensor
    step: Tensor
    found_by: list[str]


class _Book:
    """The adversarials of a record, entered budget by budget."""

    def __init__(self, victim: ModelVictim, batch: Batch, threat_model: ThreatModel, clean: Tensor) -> None:
        self._victim = copy.copy(victim)
        self._victim.spent = Spent()  # storing is no part of the attack's effort
        self._stochastic = victim.randomness is not Randomness.NONE
        self._batch, self._threat_model, self._clean = batch, threat_model, clean
        self._seen = batch.inputs
        step = torch.full_like(clean, -1, dtype=torch.int64)
        self._held = _Held(batch.inputs.clone(), clean.clone(), step, [""] * len(batch))
        self._entries: list[Adversarials] = []

    def enter(self, index: int, found: BudgetOutcome) -> BudgetOutcome:
        """Stores what is new at a budget and returns its outcome in terms of what is stored."""
        held = self._held
        if self._stochastic:
            new = (found.points != self._seen).flatten(1).any(1)
            self._seen = found.points
        else:
            new = found.scores < held.scores
        rows = new.nonzero()[:, 0]
        if len(rows):
            entry, points, scores = self._store(index, found, rows)
            self._entries.append(entry)
            held.points[rows] = points
            held.scores[rows] = scores if self._stochastic else torch.minimum(scores, self._clean[rows])
            held.step[rows] = found.step[rows]
            for row in rows.tolist():
                held.found_by[row] = found.found_by[row]
        return self._outcome(found, held)

    def carry(self, found: BudgetOutcome) -> BudgetOutcome:
        """Returns the outcome of a budget without certificates: a lower score stored at a smaller one holds there."""
        if self._stochastic:
            return found
        held, lower = self._held, self._held.scores < found.scores
        best = _Held(
            points=torch.where(_like(lower, found.points), held.points, found.points),
            scores=torch.minimum(held.scores, found.scores),
            step=torch.where(lower, held.step, found.step),
            found_by=[held.found_by[row] if low else found.found_by[row] for row, low in enumerate(lower.tolist())],
        )
        return self._outcome(found, best)

    def adversarials(self, certified: tuple[int, ...]) -> Adversarials:
        """Returns all entries as one."""
        shape = tuple(self._batch.inputs.shape[1:])
        empty = _entry(shape, certified, np.zeros(0, np.int64), 0, np.zeros((0, *shape), np.int8), 1, np.ones(0))
        parts = [empty, *self._entries]
        exact, offset = {}, 0
        for part in parts:
            exact |= {offset + place: values for place, values in part.exact.items()}
            offset += len(part)
        names = ("sample_ids", "budgets", "levels", "scales", "steps")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Adversarials(shape=shape, certified=certified, **joined, exact=exact)

    def _store(self, index: int, found: BudgetOutcome, rows: Tensor) -> tuple[Adversarials, Tensor, Tensor]:
        """Returns the new adversarials of a budget in their shortest forms, with their points and scores."""
        batch = self._batch.take(rows)
        ball = balls(self._threat_model, found.budget, self._batch).take(rows)
        points = found.points[rows]
        judgement = SELECTION if self._stochastic else FINAL
        limit = found.scores[rows]
        if self._stochastic:
            limit = judge_scores(self._victim, batch.with_inputs(points), judgement)
        relative, scales = _relative(points, ball)
        ids = batch.sample_ids.cpu().numpy()
        entry = _entry(points.shape[1:], (), ids, index, np.zeros(points.shape, np.int8), EXACT, scales)
        left = np.arange(len(rows))
        for level, outward in FORMS:
            steps = quantise(relative[left], level, outward=outward)
            tried = _entry(points.shape[1:], (), ids[left], index, steps, level, scales[left])
            some = torch.from_numpy(left).to(rows.device)
            candidates = stored_points(tried, batch.take(some), ball.take(some))
            scores = judge_scores(self._victim, batch.take(some).with_inputs(candidates), judgement)
            good = (scores <= limit[some]).cpu().numpy()
            entry.levels[left[good]] = level
            entry.steps[left[good]] = steps[good]
            left = left[~good]
            if not len(left):
                break
        entry = replace(entry, exact={int(row): points[row].cpu().numpy() for row in left})
        stored = stored_points(entry, batch, ball)
        return entry, stored, judge_scores(self._victim, batch.with_inputs(stored), FINAL)

    def _outcome(self, found: BudgetOutcome, held: _Held) -> BudgetOutcome:
        return replace(
            found,
            points=held.points.clone(),
            scores=held.scores.clone(),
            step=held.step.clone(),
            found_by=tuple(held.found_by),
        )


def _relative(points: Tensor, ball: Ball) -> tuple[np.ndarray, np.ndarray]:
    """Returns perturbations relative to `scale * eps`, in [-1, 1], and the scales: 1 for Linf, else the largest."""
    eps = ball.eps.cpu().numpy()
    change = (points - ball.originals).cpu().numpy()
    relative = np.divide(change, eps, out=np.zeros_like(change), where=np.broadcast_to(eps > 0, change.shape))
    scales = np.ones(len(change), dtype=np.float32)
    if ball.norm is not Norm.LINF:
        largest = np.abs(relative).reshape(len(change), -1).max(1)
        scales = np.where(largest > 0, np.minimum(largest, 1), 1).astype(np.float32)
    return np.clip(relative / scales.reshape(-1, *[1] * (change.ndim - 1)), -1, 1), scales


def _entry(shape, certified, sample_ids: np.ndarray, index: int, steps: np.ndarray, level: int, scales) -> Adversarials:
    return Adversarials(
        shape=tuple(shape),
        certified=certified,
        sample_ids=sample_ids,
        budgets=np.full(len(sample_ids), index, dtype=np.int64),
        levels=np.full(len(sample_ids), level, dtype=np.int64),
        scales=np.asarray(scales, dtype=np.float32),
        steps=steps,
    )


def _like(rows: Tensor, points: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (points.ndim - 1))
