"""Auto-PGD over shrinking radii: it looks outside the ball first, and comes in step by step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.apgd import APGD
from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge

STAGES = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))
"""Radius as a multiple of eps, and share of the steps."""


class ShrinkingAPGD:
    """Auto-PGD at 2 eps for 30 % of the steps, at 1.5 eps for 30 %, and in the ball for the rest; Linf and L2.

    Each stage is an Auto-PGD of its own that begins where the best point of the one before is projected to; the first
    begins at random, or at the worst known candidate. Points outside the ball are no candidates. A row whose gradient
    is exactly zero has nothing to gain at its radius and goes on to the next one at once.

    Args:
        steps: Gradient steps of all stages together.
        restarts: Independent runs on a sample that survives; each begins at random.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
    Source: Croce, Singh, Hein 2023, arXiv:2306.12941, section 3.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(self, *, steps: int = 100, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        outer = [int(share * steps) for _, share in STAGES[:-1]]
        answers = [*outer, self.steps - sum(outer)]
        self._stages = [
            (radius, APGD(steps=count - 1)) for (radius, _), count in zip(STAGES, answers, strict=True) if count
        ]

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        within = self._within(rows, 0)
        self._enter(within, starting_points(within, rng, at_random=True), 0)
        rows.memory = within.memory

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        stages = rows.memory["stage"].clone()
        flat = answer.gradient.flatten(1).abs().amax(1) == 0
        for stage, (_, apgd) in enumerate(self._stages):
            here = (stages == stage).nonzero()[:, 0]
            if not len(here):
                continue
            part = self._within(rows.take(here), stage)
            part.step = part.step - part.memory["entered"]
            apgd.tell(part, query._replace(points=query.points[here]), Answer(*(values[here] for values in answer)))
            _write(rows, here, part)
            if stage + 1 == len(self._stages):
                rows.done = rows.done.index_copy(0, here, part.done)
            else:
                self._descend(rows, here[part.done | flat[here]], stage + 1)

    def _descend(self, rows: Rows, through: Tensor, stage: int) -> None:
        """Lets these rows enter a stage at their best point so far, projected into its radius."""
        if len(through):
            part = self._within(rows.take(through), stage)
            self._enter(part, part.ball.project(part.memory["best_point"]), stage)
            _write(rows, through, part)

    def _enter(self, rows: Rows, points: Tensor, stage: int) -> None:
        self._stages[stage][1].start_at(rows, points)
        rows.memory["stage"] = torch.full_like(rows.step, stage)
        rows.memory["entered"] = rows.step.clone()

    def _within(self, rows: Rows, stage: int) -> Rows:
        """Returns the same rows with the balls of a stage."""
        ball = rows.ball
        wider = Ball(
            norm=ball.norm, originals=ball.originals, eps=ball.eps * self._stages[stage][0], support=ball.support
        )
        return replace(rows, ball=wider)


def _write(rows: Rows, places: Tensor, part: Rows) -> None:
    """Copies the memory of a part of the rows back to its places."""
    for name, values in part.memory.items():
        rows.memory[name] = rows.memory[name].index_copy(0, places, values)
