"""HopSkipJump: follows the decision boundary towards the original and sees nothing but right or wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm

START, SEARCH, ESTIMATE, LEAP = range(4)
"""What a row does: looks for any wrong image, bisects to the boundary, feels for its slope, jumps away from it."""
FINEST = 1e-6
"""Smallest share of the way to the original that a bisection still halves, for float32."""
HALVINGS = 12
"""Halvings of a jump before it is given up."""


class HopSkipJump:
    """Decision-based attack for Linf and L2: wrong images far away are brought closer along the boundary.

    A row begins at a random pattern that the model gets wrong. Then, round after round: bisection between the wrong
    image and the original; a slope from the decisions on a small sphere around the boundary point; a jump along it.
    Candidates are those points that lie in the ball. The decision is whether the score is under `fail_below`: on
    graded scores the attack gets that far and no further.

    Args:
        queries: Evaluations of one run.
        first_draws: Decisions for the first slope; round t takes sqrt(t) times as many.
        restarts: Independent runs.
        eot_samples: Draws averaged in each decision of a stochastic defense.
        fail_below: A point is wrong when its score is under this.
    Source: Chen, Jordan, Wainwright 2020, arXiv:1904.02144, algorithm 2. Starts are patterns of several grain sizes
        and contrasts, not white noise alone, which some models give one and the same class.
    """

    knowledge = Knowledge.DECISION_BASED

    def __init__(
        self,
        *,
        queries: int,
        first_draws: int = 100,
        restarts: int = 1,
        eot_samples: int = 1,
        fail_below: float = 0.5,
    ) -> None:
        self.steps = queries
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._first_draws = first_draws
        self._fail_below = fail_below

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        originals, numbers = rows.ball.originals, torch.zeros(len(rows), device=rows.step.device)
        rows.memory = {
            "phase": torch.full_like(rows.step, START),
            "round": torch.zeros_like(rows.step),
            "count": torch.zeros_like(rows.step),
            "wrong": originals.clone(),
            "low": numbers.clone(),
            "high": numbers + 1,
            "signed": torch.zeros_like(originals),
            "plain": torch.zeros_like(originals),
            "votes": numbers.clone(),
            "direction": torch.zeros_like(originals),
            "reach": numbers.clone(),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        points = rows.ball.originals.clone()
        for phase, look in ((START, _pattern), (SEARCH, _middle), (ESTIMATE, _around), (LEAP, _ahead)):
            here = (rows.memory["phase"] == phase).nonzero()[:, 0]
            if len(here):
                points[here] = look(rows.take(here), rng)
        return Query(points.clamp(0, 1), gradient=False, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        wrong = answer.score < self._fail_below
        phases = rows.memory["phase"].clone()
        for phase, learn in ((START, _started), (SEARCH, _searched), (ESTIMATE, self._estimated), (LEAP, _leapt)):
            here = (phases == phase).nonzero()[:, 0]
            if len(here):
                part = rows.take(here)
                learn(part, query.points[here], wrong[here])
                for name, values in part.memory.items():
                    rows.memory[name] = rows.memory[name].index_copy(0, here, values)
        rows.done = rows.step >= self.steps

    def _estimated(self, rows: Rows, points: Tensor, wrong: Tensor) -> None:
        """Adds one decision to the slope; after the last one of the round, aims the jump."""
        memory = rows.memory
        sign = torch.where(wrong, 1.0, -1.0)
        unit = (points - memory["wrong"]) / _like(_radius(rows), points)
        memory["signed"] = memory["signed"] + _like(sign, points) * unit
        memory["plain"] = memory["plain"] + unit
        memory["votes"] = memory["votes"] + sign
        memory["count"] = memory["count"] + 1
        wanted = (self._first_draws * memory["round"].sqrt()).floor()
        full = memory["count"] >= wanted
        mean = memory["votes"] / memory["count"]
        baseline = torch.where(mean.abs() < 1, mean, torch.zeros_like(mean))  # decisions that all agree keep their sign
        slope = memory["signed"] - _like(baseline, points) * memory["plain"]
        memory["direction"] = rows.ball.steepest(slope)
        memory["reach"] = torch.where(full, _distance(rows) / memory["round"].sqrt(), memory["reach"])
        memory["count"] = torch.where(full, torch.zeros_like(memory["count"]), memory["count"])
        memory["phase"] = torch.where(full, LEAP, ESTIMATE)


def _pattern(rows: Rows, rng: KeyedRandom) -> Tensor:
    """Returns a random pattern for each row: grains of 1, 2, 4, ... pixels in turn, between two random levels."""
    originals = rows.ball.originals
    *front, height, width = originals.shape[1:]
    sizes = int(math.log2(max(height, width))) + 2
    keys = rng.keys(rows.batch.sample_ids, rows.restart, rows.step)
    fine = rng.uniform(keys, (*front, height, width))
    grain = 2 ** (rows.step % sizes)
    line = torch.arange(height, device=grain.device)[None] // grain[:, None] * grain[:, None]
    column = torch.arange(width, device=grain.device)[None] // grain[:, None] * grain[:, None]
    places = (line[:, :, None] * width + column[:, None, :]).reshape(len(rows), *[1] * len(front), -1)
    coarse = fine.flatten(-2).gather(-1, places.expand(-1, *front, -1)).reshape(fine.shape)
    levels = rng.uniform(keys, (2,), ordinal=1)
    low, high = _like(levels.amin(1), fine), _like(levels.amax(1), fine)
    pattern = low + (high - low) * coarse
    return pattern if rows.ball.support is None else torch.where(rows.ball.support, pattern, originals)


def _started(rows: Rows, points: Tensor, wrong: Tensor) -> None:
    """Rows whose pattern is wrong go on from it; the others try another one."""
    memory = rows.memory
    memory["wrong"] = torch.where(_like(wrong, points), points, memory["wrong"])
    memory["phase"] = torch.where(wrong, SEARCH, START)


def _between(rows: Rows, share: Tensor) -> Tensor:
    """Returns points between the original (share 0) and the wrong image (share 1), at that share of its distance."""
    originals, wrong = rows.ball.originals, rows.memory["wrong"]
    if rows.ball.norm is Norm.LINF:
        radius = _like(share * _distance(rows), wrong)
        between = torch.minimum(torch.maximum(wrong, originals - radius), originals + radius)
    else:
        between = originals + _like(share, wrong) * (wrong - originals)
    return torch.where(_like(share >= 1, wrong), wrong, between)


def _middle(rows: Rows, rng: KeyedRandom) -> Tensor:
    return _between(rows, (rows.memory["low"] + rows.memory["high"]) / 2)


def _searched(rows: Rows, points: Tensor, wrong: Tensor) -> None:
    """Halves the interval; where it is fine enough its wrong end is the boundary point of a new round."""
    memory = rows.memory
    middle = (memory["low"] + memory["high"]) / 2
    memory["high"] = torch.where(wrong, middle, memory["high"])
    memory["low"] = torch.where(wrong, memory["low"], middle)
    _new_round(rows, memory["high"] - memory["low"] <= _finest(rows), _between(rows, memory["high"]))


def _new_round(rows: Rows, begins: Tensor, edge: Tensor) -> None:
    """Lets these rows feel for the slope at a boundary point."""
    memory = rows.memory
    mask = _like(begins, edge)
    memory["wrong"] = torch.where(mask, edge, memory["wrong"])
    memory["signed"] = torch.where(mask, torch.zeros_like(edge), memory["signed"])
    memory["plain"] = torch.where(mask, torch.zeros_like(edge), memory["plain"])
    memory["votes"] = torch.where(begins, torch.zeros_like(memory["votes"]), memory["votes"])
    memory["round"] = memory["round"] + begins
    memory["phase"] = torch.where(begins, ESTIMATE, memory["phase"])


def _around(rows: Rows, rng: KeyedRandom) -> Tensor:
    """Returns a random point on the small sphere around the boundary point."""
    edge = rows.memory["wrong"]
    keys = rng.keys(rows.batch.sample_ids, rows.restart, rows.step)
    shape = edge.shape[1:]
    noise = rng.uniform(keys, shape) * 2 - 1 if rows.ball.norm is Norm.LINF else rng.normal(keys, shape)
    if rows.ball.support is not None:
        noise = noise * rows.ball.support
    unit = noise / _like(noise.flatten(1).norm(dim=1).clamp(min=1e-12), noise)
    return edge + _like(_radius(rows), edge) * unit


def _radius(rows: Rows) -> Tensor:
    """Returns the radius of the small sphere: a tenth in the first round, later the distance over the dimension.

    That is the dimension, or its root in L2, times the interval at which the bisection ends: where float32 makes this
    one longer, the sphere grows with it, lest all of it lie on one side of a boundary that is known less well.
    """
    size = rows.ball.originals[0].numel()
    growth = size if rows.ball.norm is Norm.LINF else size**0.5
    later = _distance(rows) / min(size, 1 / (growth * _finest(rows)))
    return torch.where(rows.memory["round"] == 1, 0.1, later.clamp(min=FINEST))


def _finest(rows: Rows) -> float:
    """Returns the share of the distance at which the bisection ends."""
    size = rows.ball.originals[0].numel()
    return max(size**-2.0 if rows.ball.norm is Norm.LINF else size**-1.5, FINEST)


def _ahead(rows: Rows, rng: KeyedRandom) -> Tensor:
    return rows.memory["wrong"] + _like(rows.memory["reach"], rows.memory["wrong"]) * rows.memory["direction"]


def _leapt(rows: Rows, points: Tensor, wrong: Tensor) -> None:
    """A jump to a wrong image is bisected next, another one is halved, and given up in the end."""
    memory = rows.memory
    memory["wrong"] = torch.where(_like(wrong, points), points, memory["wrong"])
    memory["low"] = torch.where(wrong, torch.zeros_like(memory["low"]), memory["low"])
    memory["high"] = torch.where(wrong, torch.ones_like(memory["high"]), memory["high"])
    memory["phase"] = torch.where(wrong, SEARCH, memory["phase"])
    memory["reach"] = torch.where(wrong, memory["reach"], memory["reach"] / 2)
    memory["count"] = torch.where(wrong, torch.zeros_like(memory["count"]), memory["count"] + 1)
    lost = memory["count"] >= HALVINGS
    memory["count"] = torch.where(lost, torch.zeros_like(memory["count"]), memory["count"])
    _new_round(rows, lost, memory["wrong"])


def _distance(rows: Rows) -> Tensor:
    """Returns how far the wrong image is from the original, (N,): largest change, or Euclidean length."""
    change = (rows.memory["wrong"] - rows.ball.originals).flatten(1)
    return change.abs().amax(1) if rows.ball.norm is Norm.LINF else change.norm(dim=1)


def _like(values: Tensor, points: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (points.ndim - 1))
