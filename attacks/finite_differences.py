"""Projected ascent along gradients estimated from values alone: for models whose own gradient says nothing."""

from __future__ import annotations

import torch

from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm

EXPONENTS = {Norm.L2: 0.5, Norm.L1: 1.0}
"""By norm: the length of a vector of signs is its number of values to this power."""


class FiniteDifferences:
    """PGD whose gradient is the mean of antithetic differences along random signs.

    Differences are taken over half of eps in the ball's norm, so that ripples and steps finer than that average out.
    Each point is asked for once before its pairs, and the last one at the end.

    Args:
        iterations: Steps of the ascent.
        pairs: Pairs of queries behind each step.
        step_size: Size of a step as a share of eps.
        width: Length of a difference as a share of eps.
        restarts: Independent runs.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    Source: Ilyas et al. 2018, arXiv:1804.08598, section 2.1 (NES), with random signs as in SPSA (Uesato et al. 2018,
        arXiv:1802.05666, section 4).
    """

    knowledge = Knowledge.SCORE_BASED

    def __init__(
        self,
        *,
        iterations: int,
        pairs: int = 32,
        step_size: float = 0.25,
        width: float = 0.5,
        restarts: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self._period = 2 * pairs + 1  # the first query of a period is the point itself
        self.steps = iterations * self._period + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._step_size, self._width = step_size, width

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        point = starting_points(rows, rng, at_random=False)
        rows.memory = {
            "point": point,
            "estimate": torch.zeros_like(point),
            "first_query": point,
            "first_value": torch.zeros_like(rows.step, dtype=torch.float32),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        point = rows.memory["point"]
        direction, sign = self._direction(rows, rng, rows.step)
        length = direction[0].numel() ** EXPONENTS.get(rows.ball.norm, 0.0)
        offset = self._width * rows.ball.eps * sign.reshape(-1, *[1] * (point.ndim - 1)) * direction / length
        return Query((point + offset).clamp(0, 1), gradient=False, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory, point = rows.memory, rows.memory["point"]
        shape = (-1, *[1] * (point.ndim - 1))
        place = (rows.step - 1) % self._period
        opens, ends = place % 2 == 1, place == self._period - 1
        alone = opens | (place == 0)
        gained = torch.where(alone, torch.zeros_like(answer.objective), memory["first_value"] - answer.objective)
        tried = memory["first_query"] - query.points  # after clipping to [0, 1]
        estimate = memory["estimate"] + gained.reshape(shape) * tried
        memory["first_value"] = torch.where(opens, answer.objective, memory["first_value"])
        memory["first_query"] = torch.where(opens.reshape(shape), query.points, memory["first_query"])
        step = self._step_size * rows.ball.eps * rows.ball.steepest(estimate)
        memory["point"] = torch.where(ends.reshape(shape), rows.ball.project(point + step), point)
        memory["estimate"] = torch.where(ends.reshape(shape), torch.zeros_like(estimate), estimate)
        rows.done = rows.step >= self.steps

    def _direction(self, rows: Rows, rng: KeyedRandom, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns random signs for the pair of a step, and +1, -1, or 0 for the point itself."""
        place = step % self._period
        keys = rng.keys(rows.batch.sample_ids, rows.restart, step // self._period, (place - 1).clamp(min=0) // 2)
        signs = (rng.uniform(keys, rows.begin.shape[1:]) - 0.5).sign()
        side = torch.where(place % 2 == 1, 1.0, -1.0)
        return signs, torch.where(place == 0, torch.zeros_like(side), side)
