"""Momentum steps along gradients averaged over transformed copies: what makes adversarials transfer."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge


class TransformedMomentum(ABC):
    """Momentum iterative steps whose gradient is the mean over transformed copies of the point.

    One step takes `evaluations` answers, one for each copy, and one more for the point itself: only that is a
    candidate. A subclass says how a copy is made; the gradient is taken through the transformation.

    Args:
        steps: Gradient steps.
        step_size: Size of a step as a share of eps; None for 1 / steps.
        momentum: Share of the earlier direction that stays.
        evaluations: Answers that make up one gradient.
        eot_samples: Draws averaged in each answer of a stochastic defense.
        last_only: The last point alone is a candidate, as a paper's number is.
    Source: Dong et al. 2018, arXiv:1710.06081, algorithm 1, for the steps.
    """

    knowledge = Knowledge.WHITE_BOX
    restarts = 1

    def __init__(
        self,
        *,
        steps: int,
        step_size: float | None,
        momentum: float,
        evaluations: int,
        eot_samples: int,
        last_only: bool,
    ) -> None:
        self.steps = steps * (evaluations + 1)
        self.eot_samples = eot_samples
        self._cycle = evaluations + 1
        self._step_size = 1 / steps if step_size is None else step_size
        self._momentum = momentum
        self._last_only = last_only

    @abstractmethod
    def draw(self, rows: Rows, rng: KeyedRandom, place: Tensor) -> None:
        """Keeps in `rows.memory` what the copies at these places, int64 (N,), are made with."""

    @abstractmethod
    def transform(self, points: Tensor, rows: Rows) -> Tensor:
        """Returns the copies of points, differentiable, as `rows.memory` says."""

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        point = rows.begin.clone()
        rows.memory = {"point": point, "sum": torch.zeros_like(point), "direction": torch.zeros_like(point)}

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        place = rows.step % self._cycle
        self.draw(rows, rng, place)
        point = rows.memory["point"]
        copies = self.transform(point, rows).detach()
        counts = rows.step == self.steps - 1 if self._last_only else None
        return Query(_where(place == self._cycle - 1, point, copies), gradient=True, free=True, counts=counts)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        place = (rows.step - 1) % self._cycle
        self.learn(rows, answer.gradient, place)
        moves = place == self._cycle - 2
        slope = memory["sum"] / memory["sum"].abs().flatten(1).sum(1).clamp(min=1e-12).reshape(
            -1, *[1] * (query.points.ndim - 1)
        )
        direction = self._momentum * memory["direction"] + slope
        moved = memory["point"] + self._step_size * rows.ball.eps * rows.ball.steepest(direction)
        memory["direction"] = _where(moves, direction, memory["direction"])
        memory["point"] = _where(moves, rows.ball.project(moved), memory["point"])
        memory["sum"] = _where(moves, torch.zeros_like(slope), memory["sum"])
        rows.done = rows.step >= self.steps

    def learn(self, rows: Rows, gradient: Tensor, place: Tensor) -> None:
        """Adds the gradients at the copies, taken through the transformation, to the sum."""
        with torch.enable_grad():
            points = rows.memory["point"].detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.transform(points, rows), points, gradient)
        rows.memory["sum"] = _where(place < self._cycle - 1, rows.memory["sum"] + slope, rows.memory["sum"])


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
