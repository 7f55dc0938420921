"""Projected gradient ascent over a number of pixels."""

from __future__ import annotations

from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
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
        targets: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._step_size, self._targets = step_size, targets
        self._last_step_size = last_step_size

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins at the original or at random.

        Raises:
            InvalidEntryError: The threat model's norm is not L0.
        """
        if rows.ball.norm is not Norm.L0:
            raise InvalidEntryError(f"PGD0 is for L0, got {rows.ball.norm}")
        rows.memory["point"] = starting_points(rows, rng, at_random=False)

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
        rows.memory["point"] = rows.ball.project(query.points + step)
        rows.done = rows.step >= self.steps
