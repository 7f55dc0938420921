"""Random search in the ball: a baseline that every gradient attack must beat, and that tells when one does not."""

from __future__ import annotations

from attacks.draws import KeyedRandom
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm


class RandomSearch:
    """Evaluates independent random points of the ball; odd steps look at its surface's corners (Linf).

    Args:
        queries: Points evaluated.
        restarts: Independent runs.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    """

    knowledge = Knowledge.SCORE_BASED

    def __init__(self, *, queries: int, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = queries
        self.restarts = restarts
        self.eot_samples = eot_samples

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        rows.memory = {}

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        keys = rng.keys(rows.batch.sample_ids, rows.restart, rows.step)
        shape = rows.begin.shape[1:]
        if rows.ball.norm is not Norm.LINF:
            return Query(rows.ball.random(rng.normal(keys, shape)), gradient=False)
        noise = rng.uniform(keys, shape) * 2 - 1
        corner = (rows.step % 2 == 1).reshape(-1, *[1] * len(shape))
        return Query(rows.ball.random(noise.sign().where(corner, noise)), gradient=False)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        rows.done = rows.step >= self.steps
