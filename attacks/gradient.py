"""Gradient steps of a fixed size: FGSM, BIM and PGD."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.queries import Answer
from attacks.stepped import Query, Rows
from registry import Knowledge, Norm


class PGD:
    """Projected gradient ascent with sign (Linf) or unit (L2) steps.

    Args:
        steps: Gradient steps.
        step_size: Size of a step as a share of eps.
        random_start: Begin at a random point of the ball; otherwise restart 0 begins at the worst known candidate.
        restarts: Independent runs; runs after the first always begin at random.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Madry et al. 2018, arXiv:1706.06083.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(
        self,
        *,
        steps: int,
        step_size: float = 0.25,
        random_start: bool = True,
        restarts: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.step_size = step_size
        self.random_start = random_start
        self.restarts = restarts
        self.eot_samples = eot_samples

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        rows.memory["point"] = starting_points(rows, rng, at_random=self.random_start)

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        step = self.step_size * rows.ball.eps * rows.ball.steepest(answer.gradient)
        rows.memory["point"] = rows.ball.project(query.points + step)
        rows.done = rows.step >= self.steps


def fgsm(*, eot_samples: int = 1) -> PGD:
    """Returns one gradient step of the whole eps from the original. Source: Goodfellow et al. 2015, arXiv:1412.6572."""
    return PGD(steps=1, step_size=1.0, random_start=False, eot_samples=eot_samples)


def random_points(ball: Ball, keys: Tensor) -> Tensor:
    """Returns a random point of each ball, from one key for each row."""
    shape = ball.originals.shape[1:]
    noise = KeyedRandom.normal(keys, shape) if ball.norm is not Norm.LINF else KeyedRandom.uniform(keys, shape) * 2 - 1
    return ball.random(noise)


def starting_points(rows: Rows, rng: KeyedRandom, *, at_random: bool, ball: Ball | None = None) -> Tensor:
    """Returns where rows begin: at random, but restart 0 at the worst candidate where one is known already.

    Args:
        rows: Work in flight.
        rng: Keyed by sample and restart.
        at_random: Whether restart 0 without a known candidate begins at random, too.
        ball: Where random points lie; the rows' own balls by default.
    """
    random = random_points(ball or rows.ball, rng.keys(rows.batch.sample_ids, rows.restart, 0))
    known = (rows.begin != rows.ball.originals).flatten(1).any(1)
    fixed = (rows.restart == 0) & (known | torch.tensor(not at_random, device=known.device))
    return torch.where(fixed.reshape(-1, *[1] * (random.ndim - 1)), rows.begin, random)
