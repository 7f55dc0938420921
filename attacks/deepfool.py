"""DeepFool: steps over the linearised decision boundary until it is crossed."""

from __future__ import annotations

import torch

from attacks.draws import KeyedRandom
from attacks.hyperplane import change_to_boundary
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge


class DeepFool:
    """DeepFool for L2 and Linf (and, by the same steps, L1).

    Its objective is 0 on the boundary and positive beyond it: "margin", which follows the most likely wrong class, or
    "targeted-margin", where restart k aims at the k-th one. Points may lie outside the ball; only those inside count.
    The steps are the smallest ones inside [0, 1]; those of the paper know no bounds.

    Args:
        steps: Linearisations of the boundary at most.
        overshoot: By how much the whole change is lengthened, so that it crosses the boundary.
        restarts: Classes aimed at; every run begins at the original.
        eot_samples: Draws averaged in each gradient of a stochastic defense.

    Source: Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2 and section 3.3.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(self, *, steps: int = 50, overshoot: float = 0.02, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._overshoot = overshoot

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        rows.memory["change"] = torch.zeros_like(rows.ball.originals)

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        points = rows.ball.originals + (1 + self._overshoot) * rows.memory["change"]
        return Query(points.clamp(0, 1), gradient=True, free=True)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        step = change_to_boundary(rows.ball, query.points, query.points, answer)
        rows.memory["change"] = rows.memory["change"] + step
        rows.done = (rows.step >= self.steps) | (answer.objective > 0)
