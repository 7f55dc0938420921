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
    """PGD for L0: long gradient steps, after each of which the best pixels stay and the others return.

    Restart 0 begins at the worst known candidate, else at the original; further ones at random pixels of corner
    colours.

    Args:
        steps: Gradient steps.
        step_size: Mean absolute change of a value in one step, before the projection.
        restarts: Independent runs on a sample that survives.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Croce & Hein 2019, arXiv:1909.05040, section 4.1; the gradient has unit L1 norm, and their step for
        CIFAR-10, 120000 / 255, is 0.15 a value.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(self, *, steps: int, step_size: float = 0.15, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._step_size = step_size

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
        step = self._step_size * gradient / per_ball(mean_size, gradient)
        rows.memory["point"] = rows.ball.project(query.points + step)
        rows.done = rows.step >= self.steps
