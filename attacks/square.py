"""Square attack: random search over square-shaped changes, with nothing but the objective's value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.blocks import reserve, step_uniforms
from attacks.draws import KeyedRandom
from attacks.incumbent import Incumbent
from attacks.queries import Answer
from attacks.stepped import Query, Rows, where_rows
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError


class Square:
    """Square attack for Linf; every row follows its own schedule.

    A window that would change nothing gets the other sign: late windows are one pixel, which has it half of the time.

    Args:
        queries: Evaluations of one run.
        p_init: Share of pixels that the first squares cover.
        restarts: Independent runs.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 and 2.
    """

    knowledge = Knowledge.SCORE_BASED

    def __init__(self, *, queries: int, p_init: float = 0.8, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = queries
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._incumbent = Incumbent(noisy=eot_samples > 1)
        self._shares = torch.tensor([covered_share(p_init, i, queries) for i in range(queries + 1)])

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with vertical stripes of +-eps, or at the worst known candidate.

        Raises:
            InvalidEntryError: The threat model's norm is not Linf.
        """
        if rows.ball.norm is not Norm.LINF:
            raise InvalidEntryError(f"this Square attack is for Linf, got {rows.ball.norm}")
        *front, _, width = rows.begin.shape[1:]
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        signs = random_signs(rng.uniform(keys, (*front, 1, width)))
        stripes = rows.ball.project(rows.ball.originals + rows.ball.eps * signs)
        known = (rows.begin != rows.ball.originals).flatten(1).any(1) & (rows.restart == 0)
        rows.memory = self._incumbent.start(where_rows(known, rows.begin, stripes))
        rows.memory["random"] = reserve(rows, 2 + math.prod(front))

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        best = rows.memory["best_point"]
        *front, height, width = best.shape[1:]
        edge = (self._shares.to(best.device)[rows.step] * height * width).sqrt().round().to(torch.int64)
        edge = edge.clamp(1, min(height, width) - 1)
        random = step_uniforms(rows, rng)
        top = (random[:, 0] * (height - edge + 1)).to(torch.int64)
        left = (random[:, 1] * (width - edge + 1)).to(torch.int64)
        inside = span(top, edge, height)[:, :, None] & span(left, edge, width)[:, None, :]
        inside = inside.reshape(len(rows), *[1] * len(front), height, width)
        signs = random_signs(random[:, 2:]).reshape(len(rows), *front, 1, 1)
        changed = self._with_window(rows, inside, signs)
        idle = (changed == best).flatten(1).all(1).reshape(-1, *[1] * (best.ndim - 1))
        return self._incumbent.query(rows, torch.where(idle, self._with_window(rows, inside, -signs), changed))

    def _with_window(self, rows: Rows, inside: Tensor, signs: Tensor) -> Tensor:
        """Returns the best points with +-eps in a window of each."""
        window = rows.ball.originals + rows.ball.eps * signs
        return rows.ball.project(torch.where(inside, window, rows.memory["best_point"]))

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        self._incumbent.learn(rows, query, answer)
        rows.done = rows.step >= self.steps


def covered_share(p_init: float, step: int, queries: int) -> float:
    """Returns the share of pixels that the square covers at a step, on the paper's schedule for 10,000 queries."""
    place = int(step / queries * 10000)
    halvings = sum(place > bound for bound in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return p_init / 2**halvings


def random_signs(uniform: Tensor) -> Tensor:
    """Returns -1 or 1 from uniform numbers in [0, 1)."""
    return torch.where(uniform < 0.5, -1.0, 1.0)


def span(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Returns bool (N, size): start <= place < start + length."""
    places = torch.arange(size, device=start.device)[None]
    return (places >= start[:, None]) & (places < (start + length)[:, None])
