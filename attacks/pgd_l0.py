"""Projected gradient ascent over a number of pixels."""

from __future__ import annotations

from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
from attacks.norm_l0 import value_limits, within
from attacks.norms import by_ball, per_ball
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError


class PGD0:
    """PGD for L0: after each gradient step the best pixels stay and the others return to the original.

    Steps shrink geometrically within a run: long ones choose pixels, short ones their values, which need not be
    extreme. Restart 0 begins at the worst known candidate, else at the original; further ones at random pixels of
    corner colours. With each round of targets the first step is a third as long as before; the sixth round starts over
    with the whole one.

    Args:
        steps: Gradient steps.
        step_size: Mean absolute change of a value in the first step, before the projection.
        last_step_size: The same in the last step.
        restarts: Independent runs on a sample that survives.
        most_change: Largest change of a value: filters of outliers leave pixels alone that differ little.
        inset: Distance that changed values keep from 0 and 1, which filters of salt and pepper replace.
        targets: Restarts of one round, which differ in the class that the objective aims at.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Croce & Hein 2019, arXiv:1909.05040, section 4.1, whose gradient has unit L1 norm, too. Their steps of
        120000 / 255 for CIFAR-10, 0.15 a value, do not shrink, and broke far less on the phantom.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(
        self,
        *,
        steps: int,
        step_size: float = 10.0,
        last_step_size: float = 0.003,
        restarts: int = 1,
        most_change: float = 1.0,
        inset: float = 0.0,
        targets: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._step_size, self._targets = step_size, targets
        self._last_step_size, self._most_change, self._inset = last_step_size, most_change, inset

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins at the original or at random.

        Raises:
            InvalidEntryError: The threat model's norm is not L0.
        """
        if rows.ball.norm is not Norm.L0:
            raise InvalidEntryError(f"PGD0 is for L0, got {rows.ball.norm}")
        rows.memory["point"] = self._limited(rows, starting_points(rows, rng, at_random=False))

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        gradient = answer.gradient
        if rows.ball.support is not None:
            gradient = gradient * rows.ball.support
        mean_size = by_ball(gradient.abs(), rows.ball.eps).mean(2).clamp(min=1e-30)
        first = (self._step_size * 3.0 ** -(rows.restart // self._targets % 5)).clamp(min=self._last_step_size)
        share = (rows.step - 1) / max(self.steps - 2, 1)
        length = first * (self._last_step_size / first) ** share
        step = length.reshape(-1, *[1] * (gradient.ndim - 1)) * gradient / per_ball(mean_size, gradient)
        rows.memory["point"] = rows.ball.project(self._limited(rows, query.points + step))
        rows.done = rows.step >= self.steps

    def _limited(self, rows: Rows, points: Tensor) -> Tensor:
        """Returns the nearest points of the ball whose changed values lie within the limits."""
        if self._most_change >= 1 and not self._inset:
            return points
        ball = rows.ball
        return within(points, ball.originals, ball.eps, *value_limits(ball.originals, self._most_change, self._inset))
