"""Square attack: random search over square-shaped changes, with nothing but the objective's value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.queries import Answer
from attacks.stepped import Query, Rows
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError

BLOCK = 50
"""Steps whose random numbers are drawn together; drawing costs many small operations."""


class Square:
    """Square attack for Linf; every row follows its own schedule.

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
        self._shares = torch.tensor([_share(p_init, i, queries) for i in range(queries + 1)])

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with vertical stripes of +-eps, or at the worst known candidate.

        Raises:
            InvalidEntryError: The threat model's norm is not Linf.
        """
        if rows.ball.norm is not Norm.LINF:
            raise InvalidEntryError(f"this Square attack is for Linf, got {rows.ball.norm}")
        *front, _, width = rows.begin.shape[1:]
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        signs = _signs(rng.uniform(keys, (*front, 1, width)))
        stripes = rows.ball.project(rows.ball.originals + rows.ball.eps * signs)
        known = (rows.begin != rows.ball.originals).flatten(1).any(1) & (rows.restart == 0)
        rows.memory = {
            "best_point": torch.where(known.reshape(-1, *[1] * (stripes.ndim - 1)), rows.begin, stripes),
            "best": torch.full_like(rows.step, 0, dtype=torch.float32) - torch.inf,
            "random": stripes.new_zeros(len(rows), BLOCK, 2 + math.prod(front)),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        best = rows.memory["best_point"]
        *front, height, width = best.shape[1:]
        edge = (self._shares.to(best.device)[rows.step] * height * width).sqrt().round().to(torch.int64)
        edge = edge.clamp(1, min(height, width) - 1)
        random = self._random(rows, rng, 2 + math.prod(front))
        top = (random[:, 0] * (height - edge + 1)).to(torch.int64)
        left = (random[:, 1] * (width - edge + 1)).to(torch.int64)
        inside = _span(top, edge, height)[:, :, None] & _span(left, edge, width)[:, None, :]
        inside = inside.reshape(len(rows), *[1] * len(front), height, width)
        signs = _signs(random[:, 2:]).reshape(len(rows), *front, 1, 1)
        changed = torch.where(inside, rows.ball.originals + rows.ball.eps * signs, best)
        first = (rows.step == 0).reshape(-1, *[1] * (best.ndim - 1))
        return Query(torch.where(first, best, rows.ball.project(changed)), gradient=False)

    def _random(self, rows: Rows, rng: KeyedRandom, count: int) -> Tensor:
        """Returns `count` uniform numbers for each row's step; they are drawn for a block of steps at a time."""
        place = rows.step % BLOCK
        begins = place == 0
        if begins.any():
            keys = rng.keys(rows.batch.sample_ids[begins], rows.restart[begins], rows.step[begins] + 1)
            block = rows.memory["random"].clone()
            block[begins] = rng.uniform(keys, (BLOCK, count))
            rows.memory["random"] = block
        return rows.memory["random"][torch.arange(len(rows), device=place.device), place]

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        better = answer.objective > rows.memory["best"]
        rows.memory["best"] = torch.where(better, answer.objective, rows.memory["best"])
        mask = better.reshape(-1, *[1] * (query.points.ndim - 1))
        rows.memory["best_point"] = torch.where(mask, query.points, rows.memory["best_point"])
        rows.done = rows.step >= self.steps


def _share(p_init: float, step: int, queries: int) -> float:
    """Share of pixels that the square covers at a step, on the paper's schedule for 10,000 queries."""
    place = int(step / queries * 10000)
    halvings = sum(place > bound for bound in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return p_init / 2**halvings


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _span(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Returns bool (N, size): start <= place < start + length."""
    places = torch.arange(size, device=start.device)[None]
    return (places >= start[:, None]) & (places < (start + length)[:, None])
