"""FAB: walks along the decision boundary towards the original, for the smallest adversarial change."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.hyperplane import change_size, change_to_boundary
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge

FINAL = 3
"""Answers of the final search between the original and the closest adversarial."""


class FAB:
    """Fast adaptive boundary attack for Linf, L2 and L1; every row follows its own schedule.

    Its objective is 0 on the boundary and positive beyond it: "margin" for two classes, "targeted-margin" for more,
    where restart k aims at the k-th most likely class. Points may lie outside the ball; only those inside count.

    Two things differ from the paper, and both find more with fewer queries. An answer beyond the boundary serves
    twice: the walk goes back towards the original and on to the boundary as seen from beyond it; the published attack
    asks once more after going back. And the walk keeps within `reach` balls, since a boundary far outside says
    little about the one nearby, and coming back from there by `beta` takes most of the steps.

    Args:
        steps: Linearisations of the boundary.
        targets: Runs that begin at the original, one for each class aimed at.
        restarts: Runs for each target; all after the first begin at random, half of eps away.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
        alpha_max: Largest weight of the step from the original.
        eta: Overshoot beyond the boundary.
        beta: Share of the change that is kept when the boundary is crossed.
        reach: Farthest point of the walk, in multiples of eps; infinity for the paper's walk.

    Source: Croce & Hein 2020, arXiv:1907.02044, algorithm 1.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(
        self,
        *,
        steps: int = 100,
        targets: int = 1,
        restarts: int = 1,
        eot_samples: int = 1,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        reach: float = 2.0,
    ) -> None:
        self.steps = steps + FINAL
        self.restarts = restarts * targets
        self.eot_samples = eot_samples
        self._targets = targets
        self._walk_steps = steps
        self._alpha_max, self._eta, self._beta, self._reach = alpha_max, eta, beta, reach

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        number = torch.zeros_like(rows.step, dtype=torch.float32)
        rows.memory = {
            "point": self._beginning(rows, rng),
            "best_point": rows.ball.originals.clone(),
            "best_size": number + torch.inf,
            "best_value": number.clone(),
            "low_size": number.clone(),
            "low_value": number + torch.nan,
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        memory["point"] = self._walk(rows, query.points, answer)
        self._remember(rows, query.points, answer.objective)
        searching = rows.step >= self._walk_steps
        if searching.any():
            memory["point"] = _where(searching, self._between(rows), memory["point"])
        rows.done = (rows.step >= self.steps) | (searching & torch.isinf(memory["best_size"]))

    def _beginning(self, rows: Rows, rng: KeyedRandom) -> Tensor:
        """Returns the originals for the first run on each target, random points half of eps away for later ones."""
        ball = rows.ball
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        noise = (rng.uniform(keys, rows.begin.shape[1:]) * 2 - 1) * (ball.eps > 0)
        noise = noise if ball.support is None else noise * ball.support
        direction = noise / _like(change_size(ball, noise).clamp(min=1e-12), noise)
        random = (ball.originals + 0.5 * ball.eps.max() * direction).clamp(0, 1)
        return _where(rows.restart < self._targets, ball.originals, random)

    def _walk(self, rows: Rows, points: Tensor, answer: Answer) -> Tensor:
        """Returns the next points: beyond the linearised boundary, drawn towards where it is next to the original.

        Source: equations 7 to 9, after the backward step of section 3 where the boundary is crossed.
        """
        ball, originals = rows.ball, rows.ball.originals
        kept = points - originals  # sums of changes stay exactly 0 where nothing may change
        kept = _where(answer.objective > 0, self._beta * kept, kept)
        from_base = change_to_boundary(ball, originals + kept, points, answer)
        from_original = change_to_boundary(ball, originals, points, answer)
        size = change_size(ball, from_base)
        weight = size / (size + change_size(ball, from_original)).clamp(min=1e-12)
        weight = _like(weight.clamp(max=self._alpha_max), points)
        change = (1 - weight) * (kept + self._eta * from_base) + weight * self._eta * from_original
        change = (originals + change).clamp(0, 1) - originals
        farthest = self._reach * ball.eps.max()
        shrink = (farthest / change_size(ball, change).clamp(min=1e-12)).clamp(max=1)
        return originals + _like(shrink, change) * change

    def _remember(self, rows: Rows, points: Tensor, values: Tensor) -> None:
        """Keeps the closest point beyond the boundary and, on the line of the final search, the last one before it."""
        memory = rows.memory
        size, crossed = change_size(rows.ball, points - rows.ball.originals), values > 0
        before = (rows.step > self._walk_steps) & ~crossed
        memory["low_size"] = torch.where(before, size, memory["low_size"])
        at_original = (rows.step == 1) & (rows.restart < self._targets)
        memory["low_value"] = torch.where(before | at_original, values, memory["low_value"])
        closer = crossed & (size < memory["best_size"])
        memory["best_point"] = _where(closer, points, memory["best_point"])
        memory["best_size"] = torch.where(closer, size, memory["best_size"])
        memory["best_value"] = torch.where(closer, values, memory["best_value"])

    def _between(self, rows: Rows) -> Tensor:
        """Returns points between original and closest adversarial: on the ball's surface first, then by secants.

        Where the value before the boundary is not known, the line is halved. Source: equation 10; a secant stops a
        little short of the boundary, on the far side, so that rounding does not lose the adversarial.
        """
        memory, ball = rows.memory, rows.ball
        change = memory["best_point"] - ball.originals
        back = 0.95 * memory["best_value"] / (memory["best_value"] - memory["low_value"])
        back = torch.where(torch.isfinite(back), back, 0.5)
        share = 1 - back * (1 - memory["low_size"] / memory["best_size"].clamp(min=1e-12))
        between = ball.originals + _like(share, change) * change
        size = ball.size(memory["best_point"])
        surface = ball.project(ball.originals + _like((1 - 1e-6) / size.clamp(min=1), change) * change)
        return _where((rows.step == self._walk_steps) & (size > 1), surface, between)


def _like(values: Tensor, points: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (points.ndim - 1))


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(_like(rows, yes), yes, no)
