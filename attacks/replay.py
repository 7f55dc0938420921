"""Iterative gradient attacks as papers score them: fixed steps from the original, and only the last point counts."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.queries import Answer
from attacks.stepped import Query, Rows, where_rows
from registry import Knowledge
from registry.errors import InvalidEntryError

NOTHING, GRADIENTS, SIGNS = "nothing", "gradients", "signs"


class ReplayedSteps:
    """Steps of a fixed size along the sign of a gradient, without random start, restart or choice among iterates.

    With `steps=1, step_size=1` it is FGSM, without momentum PGD or BIM, with it MIM. On a stochastic victim each step
    follows one fresh draw.

    Args:
        steps: Gradient steps.
        step_size: Size of a step as a share of eps.
        momentum: What adds up from step to step: "nothing", "gradients" of unit L1 norm, or their "signs".
        clip_to: Centre of the ball that a step is clipped to: "original", or "iterate", the point the step begins at,
            which with steps of at most eps never binds. The last point is projected into the real ball, and every
            point into [0, 1].

    Raises:
        InvalidEntryError: An option is none of these words.
    Source: Madry et al. 2018, arXiv:1706.06083; Dong et al. 2018, arXiv:1710.06081, algorithm 1, with decay 1.
    """

    knowledge = Knowledge.WHITE_BOX
    restarts = 1
    eot_samples = 1

    def __init__(self, *, steps: int, step_size: float, momentum: str = NOTHING, clip_to: str = "original") -> None:
        if momentum not in (NOTHING, GRADIENTS, SIGNS):
            raise InvalidEntryError(f"momentum is nothing, gradients or signs, got {momentum!r}")
        if clip_to not in ("original", "iterate"):
            raise InvalidEntryError(f"clip_to is original or iterate, got {clip_to!r}")
        self.steps = steps + 1  # the last point is evaluated too
        self._step_size, self._momentum, self._free = step_size, momentum, clip_to == "iterate"

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        point = rows.ball.originals
        rows.memory = {"point": point, "sum": torch.zeros_like(point)}

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        last, point = rows.step >= self.steps - 1, rows.memory["point"]
        point = where_rows(last, rows.ball.project(point), point)
        return Query(point, gradient=not bool(last.all()), free=self._free, counts=last)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        rows.done = rows.step >= self.steps
        if answer.gradient is None:
            return
        direction = self._direction(rows, answer.gradient)
        point = query.points + self._step_size * rows.ball.eps * direction
        rows.memory["point"] = point.clamp(0, 1) if self._free else rows.ball.project(point)

    def _direction(self, rows: Rows, gradient: Tensor) -> Tensor:
        if self._momentum == NOTHING:
            return rows.ball.steepest(gradient)
        if self._momentum == SIGNS:
            part = gradient.sign()
        else:
            length = gradient.abs().flatten(1).sum(1).clamp(min=1e-12)
            part = gradient / length.reshape(-1, *[1] * (gradient.ndim - 1))
        rows.memory["sum"] = rows.memory["sum"] + part
        return rows.ball.steepest(rows.memory["sum"])
