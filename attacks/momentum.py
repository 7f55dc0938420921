"""Iterative gradient attacks as papers replay them: BIM, and MIM with momentum; both begin at the original."""

from __future__ import annotations

import torch

from attacks.draws import KeyedRandom
from attacks.gradient import PGD, starting_points
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge


def bim(*, steps: int = 10, step_size: float | None = None, eot_samples: int = 1) -> PGD:
    """Returns gradient steps of a fixed size from the original.

    Args:
        steps: Gradient steps.
        step_size: Size of a step as a share of eps; by default 1 / steps.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Kurakin et al. 2017, arXiv:1607.02533, section 2.2.
    """
    return PGD(steps=steps, step_size=step_size or 1 / steps, random_start=False, eot_samples=eot_samples)


class MIM:
    """Momentum iterative method: steps along a decaying sum of gradients of unit L1 norm.

    Args:
        steps: Gradient steps.
        step_size: Size of a step as a share of eps; by default 1 / steps.
        decay: Share of the sum that is kept at each step.
        restarts: Independent runs; further ones begin at random.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Dong et al. 2018, arXiv:1710.06081, algorithm 1; for norms beside Linf the step is the ball's steepest one.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(
        self,
        *,
        steps: int = 10,
        step_size: float | None = None,
        decay: float = 1.0,
        restarts: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.restarts = restarts
        self.steps = steps + 1  # the last point is evaluated too
        self.eot_samples = eot_samples
        self._step_size = step_size or 1 / steps
        self._decay = decay

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        point = starting_points(rows, rng, at_random=False)
        rows.memory = {"point": point, "momentum": torch.zeros_like(point)}

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory, ball = rows.memory, rows.ball
        length = answer.gradient.abs().flatten(1).sum(1).clamp(min=torch.finfo(answer.gradient.dtype).tiny)
        unit = answer.gradient / length.reshape(-1, *[1] * (answer.gradient.ndim - 1))
        memory["momentum"] = self._decay * memory["momentum"] + unit
        memory["point"] = ball.project(query.points + self._step_size * ball.eps * ball.steepest(memory["momentum"]))
        rows.done = rows.step >= self.steps
