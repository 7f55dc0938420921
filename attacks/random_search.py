"""Random points of the ball: the baseline that every other attack must beat."""

from __future__ import annotations

from attacks.draws import KeyedRandom
from attacks.gradient import random_points
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge


class RandomSearch:
    """Independent random points at the edge of the ball, in any norm; the first one that breaks a sample ends its row.

    Args:
        queries: Points of one run.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    """

    knowledge = Knowledge.SCORE_BASED
    restarts = 1

    def __init__(self, *, queries: int, eot_samples: int = 1) -> None:
        self.steps = queries
        self.eot_samples = eot_samples

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Keeps nothing in memory."""

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(random_points(rows.ball, rng.keys(rows.batch.sample_ids, rows.step, 1)), gradient=False)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        rows.done = rows.step >= self.steps
