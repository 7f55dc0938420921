"""Auto-PGD: gradient ascent with momentum that halves its step where it stops to gain."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
from attacks.queries import Answer
from attacks.stepped import Query, Rows
from registry import Knowledge


class APGD:
    """Auto-PGD for Linf and L2; every row follows its own schedule.

    Args:
        steps: Gradient steps.
        restarts: Independent runs on a sample that survives; each begins at random.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
        rho: Share of gaining steps under which the step is halved.
    Source: Croce & Hein 2020, arXiv:2003.01690, algorithm 1; step 2 eps, momentum 0.75, checkpoints of section 3.
    """

    knowledge = Knowledge.WHITE_BOX
    momentum = 0.75

    def __init__(self, *, steps: int = 100, restarts: int = 1, eot_samples: int = 1, rho: float = 0.75) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._rho = rho
        self._windows = _windows(steps)

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        self.start_at(rows, starting_points(rows, rng, at_random=True))

    def start_at(self, rows: Rows, point: Tensor) -> None:
        """Fills the memory of rows that begin at these points, (N, ...)."""
        value = torch.full_like(rows.step, 0, dtype=torch.float32)
        rows.memory = {
            "point": point,
            "previous": point,
            "best_point": point,
            "best_gradient": torch.zeros_like(point),
            "best": value - torch.inf,
            "last": value.clone(),
            "gains": value.clone(),
            "best_at_checkpoint": value - torch.inf,
            "halved": torch.ones_like(rows.done),
            "step_size": 2 * torch.ones_like(value),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        first = rows.step == 1
        memory["gains"] += ((answer.objective > memory["last"]) & ~first).to(torch.float32)
        memory["last"] = answer.objective
        better = answer.objective > memory["best"]
        memory["best"] = torch.where(better, answer.objective, memory["best"])
        memory["best_point"] = _where(better, query.points, memory["best_point"])
        memory["best_gradient"] = _where(better, answer.gradient, memory["best_gradient"])
        memory["best_at_checkpoint"] = torch.where(first, answer.objective, memory["best_at_checkpoint"])
        gradient = self._checkpoint(rows, answer.gradient)
        self._move(rows, gradient, first)
        rows.done = rows.step >= self.steps

    def _checkpoint(self, rows: Rows, gradient: Tensor) -> Tensor:
        """Halves the step of rows whose window ended without enough gain and sends them back to their best point."""
        memory = rows.memory
        window = self._windows.to(rows.step.device)[rows.step - 1]
        at_checkpoint = window > 0
        if not at_checkpoint.any():
            return gradient
        few_gains = memory["gains"] <= self._rho * window
        stuck = ~memory["halved"] & (memory["best_at_checkpoint"] >= memory["best"])
        halve = at_checkpoint & (few_gains | stuck)
        memory["step_size"] = torch.where(halve, memory["step_size"] / 2, memory["step_size"])
        memory["halved"] = torch.where(at_checkpoint, halve, memory["halved"])
        memory["best_at_checkpoint"] = torch.where(at_checkpoint, memory["best"], memory["best_at_checkpoint"])
        memory["gains"] = torch.where(at_checkpoint, torch.zeros_like(memory["gains"]), memory["gains"])
        memory["point"] = _where(halve, memory["best_point"], memory["point"])
        return _where(halve, memory["best_gradient"], gradient)

    def _move(self, rows: Rows, gradient: Tensor, first: Tensor) -> None:
        memory, ball = rows.memory, rows.ball
        point = memory["point"]
        size = memory["step_size"].reshape(-1, *[1] * (point.ndim - 1)) * ball.eps
        target = ball.project(point + size * ball.steepest(gradient))
        share = torch.where(first, 1.0, self.momentum).reshape(-1, *[1] * (point.ndim - 1))
        moved = ball.project(point + share * (target - point) + (1 - share) * (point - memory["previous"]))
        memory["previous"] = point
        memory["point"] = moved


def _windows(steps: int) -> Tensor:
    """Returns for each step the length of the window that ends there, 0 between checkpoints: int64 (steps + 1,)."""
    windows = torch.zeros(steps + 1, dtype=torch.int64)
    length, at = max(int(0.22 * steps), 1), 0
    shortest, shrink = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    while at + length <= steps:
        at += length
        windows[at] = length
        length = max(length - shrink, shortest)
    return windows


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
