"""Carlini & Wagner's L2 attack: the smallest change that leaves the margin on the wrong side, in tanh space."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError

INSIDE = 0.999999
"""Share of the range that tanh space covers: its ends lie at infinity."""
UNBOUNDED = 1e10
"""Upper end of the search for c before any run succeeded."""


class CarliniWagner:
    """CW-L2: minimises |change|^2 + c max(confidence - objective, 0) by Adam, and searches c; each row by itself.

    The objective is positive beyond the boundary: "margin", or "targeted-margin" with one restart for each class.
    Points may lie outside the ball; only those inside count.

    Args:
        steps: Adam steps of one run; a run ends early when a tenth of them gains nothing.
        search_steps: Runs of the search for c: ten times as large until one succeeds, then halfway between.
        learning_rate: Of Adam, in tanh space.
        initial_c: c of the first run.
        confidence: Margin that counts as success, kappa in the paper.
        restarts: Classes aimed at; every run begins at the original.
        eot_samples: Draws averaged in each gradient of a stochastic defense.

    Source: Carlini & Wagner 2017, arXiv:1608.04644, section VI-A; Adam's constants as in Kingma & Ba 2015.
    """

    knowledge = Knowledge.WHITE_BOX
    decays = (0.9, 0.999)

    def __init__(
        self,
        *,
        steps: int = 200,
        search_steps: int = 9,
        learning_rate: float = 0.01,
        initial_c: float = 1e-3,
        confidence: float = 0.0,
        restarts: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.steps = steps * search_steps
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._run_steps, self._runs = steps, search_steps
        self._learning_rate, self._initial_c, self._confidence = learning_rate, initial_c, confidence

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins at the originals.

        Raises:
            InvalidEntryError: The threat model's norm is not L2.
        """
        if rows.ball.norm is not Norm.L2:
            raise InvalidEntryError(f"the attack of Carlini and Wagner is for L2, got {rows.ball.norm}")
        number = torch.zeros_like(rows.step, dtype=torch.float32)
        place = _tanh_place(rows.ball.originals)
        rows.memory = {
            "place": place,
            "first_moment": torch.zeros_like(place),
            "second_moment": torch.zeros_like(place),
            "c": number + self._initial_c,
            "low": number.clone(),
            "high": number + UNBOUNDED,
            "run": torch.zeros_like(rows.step),
            "run_step": torch.zeros_like(rows.step),
            "succeeded": torch.zeros_like(rows.done),
            "last_loss": number + torch.inf,
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        points = (rows.memory["place"].tanh() + 1) / 2
        return Query(torch.where(_movable(rows.ball), points, rows.ball.originals), gradient=True, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        change = query.points - rows.ball.originals
        short = self._confidence - answer.objective
        loss = change.pow(2).flatten(1).sum(1) + memory["c"] * short.clamp(min=0)
        weight = memory["c"] * (short > 0)
        slope = 2 * change - _like(weight, change) * answer.gradient
        memory["succeeded"] = memory["succeeded"] | (answer.objective > self._confidence)
        memory["run_step"] = memory["run_step"] + 1
        self._descend(rows, slope * 2 * query.points * (1 - query.points))  # the derivative of tanh
        ended = self._ended(rows, loss)
        if ended.any():
            self._next_run(rows, ended)
        rows.done = memory["run"] >= self._runs

    def _descend(self, rows: Rows, slope: Tensor) -> None:
        """Takes one step of Adam in tanh space."""
        memory, slope = rows.memory, slope * _movable(rows.ball)
        for name, decay, value in zip(("first", "second"), self.decays, (slope, slope * slope), strict=True):
            memory[f"{name}_moment"] = decay * memory[f"{name}_moment"] + (1 - decay) * value
        taken = _like(memory["run_step"], slope)
        mean = memory["first_moment"] / (1 - self.decays[0] ** taken)
        spread = (memory["second_moment"] / (1 - self.decays[1] ** taken)).sqrt()
        memory["place"] = memory["place"] - self._learning_rate * mean / (spread + 1e-8)

    def _ended(self, rows: Rows, loss: Tensor) -> Tensor:
        """Returns whose run is over: all steps taken, or the loss no lower than a tenth of them ago."""
        memory = rows.memory
        check = memory["run_step"] % max(self._run_steps // 10, 1) == 0
        stalled = check & (loss > 0.9999 * memory["last_loss"])
        memory["last_loss"] = torch.where(check, loss, memory["last_loss"])
        return stalled | (memory["run_step"] >= self._run_steps)

    def _next_run(self, rows: Rows, ended: Tensor) -> None:
        """Chooses the next c of the rows whose run is over and sends them back to the original."""
        memory = rows.memory
        memory["high"] = torch.where(ended & memory["succeeded"], memory["c"], memory["high"])
        memory["low"] = torch.where(ended & ~memory["succeeded"], memory["c"], memory["low"])
        middle = (memory["low"] + memory["high"]) / 2
        following = torch.where(memory["high"] < UNBOUNDED, middle, memory["c"] * 10)
        memory["c"] = torch.where(ended, following, memory["c"])
        place = _tanh_place(rows.ball.originals)
        memory["place"] = torch.where(_like(ended, place), place, memory["place"])
        for name in ("first_moment", "second_moment", "run_step", "succeeded"):
            memory[name] = memory[name].masked_fill(_like(ended, memory[name]), 0)
        memory["last_loss"] = memory["last_loss"].masked_fill(ended, torch.inf)
        memory["run"] = memory["run"] + ended


def _tanh_place(inputs: Tensor) -> Tensor:
    return ((inputs * 2 - 1) * INSIDE).atanh()


def _movable(ball: Ball) -> Tensor:
    """Returns where changes are allowed: bool, broadcastable to the inputs."""
    return ball.eps > 0 if ball.support is None else (ball.eps > 0) & ball.support


def _like(values: Tensor, points: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (points.ndim - 1))
