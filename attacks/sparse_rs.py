"""Sparse-RS: random search over a number of pixels, with nothing but the objective's value."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.blocks import reserve, step_uniforms
from attacks.draws import KeyedRandom
from attacks.incumbent import Incumbent
from attacks.norm_l0 import value_limits
from attacks.pixels import corner, from_pixels, largest, to_pixels
from attacks.stepped import Query, Rows, where_rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError

SCHEDULE = ((0, 1), (50, 2), (200, 4), (500, 5), (1000, 6), (2000, 8), (4000, 10), (6000, 12), (8000, 15), (10000, 20))
"""Up to which of 10,000 queries the share of exchanged pixels is divided by which number."""


class SparseRS:
    """Sparse-RS for L0: keeps a set of pixels with corner colours and exchanges some of them where that gains.

    Memory holds each ball's pixels in an order: first the chosen ones, then those that may be chosen, then the rest.

    Args:
        queries: Evaluations of one run.
        share: Share of the chosen pixels that the first steps exchange.
        most_change: Largest change of a value: filters of outliers leave pixels alone that differ little.
        inset: Distance that colours keep from 0 and 1, which filters of salt and pepper replace. Colours are corners
            of the values within the limit; with one the worst known candidate, which may lie beyond it, is no
            beginning.
        restarts: Independent runs.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    Source: Croce et al. 2022, arXiv:2006.12834, algorithm 1 and section 4.1. Here a new colour always differs from
        the pixel's present one, and where no other pixel is left, pixels get new colours in place.
    """

    knowledge = Knowledge.SCORE_BASED

    def __init__(
        self,
        *,
        queries: int,
        share: float = 0.3,
        most_change: float = 1.0,
        inset: float = 0.0,
        restarts: int = 1,
        eot_samples: int = 1,
    ) -> None:
        self.steps = queries
        self._most_change, self._inset = most_change, inset
        self._unlimited = most_change >= 1 and not inset
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._incumbent = Incumbent(noisy=eot_samples > 1)
        self._shares = torch.tensor([exchanged_share(share, step, queries) for step in range(queries + 1)])

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with random pixels of random corner colours, or at the worst known candidate.

        Raises:
            InvalidEntryError: The threat model's norm is not L0.
        """
        ball = rows.ball
        if ball.norm is not Norm.L0:
            raise InvalidEntryError(f"Sparse-RS is for L0, got {ball.norm}")
        originals, allowed = to_pixels(ball.originals, ball.eps), allowed_pixels(ball)
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        count = torch.minimum(ball.eps.reshape(1, -1).to(torch.int64), allowed.sum(-1))
        known = (rows.begin != ball.originals).flatten(1).any(1) & (rows.restart == 0) & self._unlimited
        changed = (to_pixels(rows.begin, ball.eps) != originals).any(-1) & known[:, None, None]
        priority = rng.uniform(keys, allowed.shape[1:]) + allowed + changed
        chosen = largest(priority, count[..., None])[..., None]
        low, high = value_limits(originals, self._most_change, self._inset)
        colours = torch.where(rng.uniform(keys, originals.shape[1:], 1) < 0.5, high, low)
        point = from_pixels(torch.where(chosen, colours, originals), ball.originals)
        order = priority.argsort(dim=-1, descending=True, stable=True)
        rows.memory = self._incumbent.start(where_rows(known, rows.begin, point)) | {
            "order": order,
            "asked_order": order,
            "exchanged": torch.zeros_like(count),
            "count": count,
            "allowed": allowed.sum(-1),
            "random": reserve(rows, 3 * count.shape[1] * self._most_exchanged(ball)),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        memory, ball = rows.memory, rows.ball
        random = step_uniforms(rows, rng).reshape(len(rows), 3, memory["count"].shape[1], -1)
        share = self._shares.to(random.device)[rows.step]
        exchanged = (share[:, None] * memory["count"]).to(torch.int64).clamp(min=1)
        exchanged = torch.minimum(exchanged, memory["count"]) * (rows.step > 0)[:, None]
        memory["exchanged"], memory["asked_order"] = exchanged, self._shuffled(rows, random[:, :2], exchanged)
        pixels = self._recoloured(rows, random[:, 2])
        return self._incumbent.query(rows, ball.project(from_pixels(pixels, ball.originals)))

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        better = self._incumbent.learn(rows, query, answer)
        order = memory["asked_order"]
        for place in range(int(memory["exchanged"].max()) if len(rows) else 0):
            other = memory["count"] + place
            taken = better[:, None] & (place < memory["exchanged"]) & (other < memory["allowed"])
            order = _swapped(order, torch.full_like(other, place), other, taken)
        memory["order"] = order
        rows.done = rows.step >= self.steps

    def _most_exchanged(self, ball: Ball) -> int:
        """Returns how many pixels of a ball any step exchanges at most; the same for all rows of a run."""
        most = max(int(float(self._shares.max()) * float(ball.eps.max())), 1)
        return min(most, to_pixels(ball.originals[:1], ball.eps).shape[2])

    def _shuffled(self, rows: Rows, random: Tensor, exchanged: Tensor) -> Tensor:
        """Returns the order with random chosen pixels first, and random others first of the others.

        Args:
            rows: Work in flight.
            random: Uniform numbers, (N, 2, balls, most exchanged).
            exchanged: int64 (N, balls), how many of both are drawn.
        """
        order, count, allowed = rows.memory["order"], rows.memory["count"], rows.memory["allowed"]
        for place in range(int(exchanged.max()) if len(rows) else 0):
            for which, (first, end) in enumerate(((torch.zeros_like(count), count), (count, allowed))):
                here = first + place
                drawn = here + (random[:, which, :, place] * (end - here)).to(torch.int64)
                order = _swapped(order, here, drawn, (place < exchanged) & (here < end))
        return order

    def _recoloured(self, rows: Rows, random: Tensor) -> Tensor:
        """Returns the best point's pixels with the first chosen ones restored and the first others coloured anew."""
        memory, ball = rows.memory, rows.ball
        best, originals = (to_pixels(values, ball.eps) for values in (memory["best_point"], ball.originals))
        order, count = memory["asked_order"], memory["count"][..., None]
        places = torch.arange(random.shape[-1], device=order.device)
        active = (places < memory["exchanged"][..., None])[..., None]
        another = torch.where(count + places < memory["allowed"][..., None], count + places, places)
        leaving = order[..., : len(places), None].expand(*active.shape[:-1], best.shape[-1])
        coming = order.gather(-1, another)[..., None].expand_as(leaving)
        low, high = (values.gather(2, coming) for values in value_limits(originals, self._most_change, self._inset))
        colours = _other_corner(best.gather(2, coming), random, low, high)
        pixels = best.scatter(2, leaving, torch.where(active, originals.gather(2, leaving), best.gather(2, leaving)))
        return pixels.scatter(2, coming, torch.where(active, colours, pixels.gather(2, coming)))


def exchanged_share(share: float, step: int, queries: int) -> float:
    """Returns the share of chosen pixels that a step exchanges, on the published schedule for 10,000 queries."""
    place = int(step / queries * 10000)
    return share / next(divisor for bound, divisor in SCHEDULE if place <= bound)


def allowed_pixels(ball: Ball) -> Tensor:
    """Returns which pixels may be changed in some channel: bool (N, balls, pixels)."""
    if ball.support is None:
        return torch.ones_like(to_pixels(ball.originals, ball.eps)[..., 0], dtype=torch.bool)
    return to_pixels(ball.support, ball.eps).any(-1)


def _swapped(order: Tensor, one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    """Returns the order (N, balls, pixels) with two places, int64 (N, balls), exchanged where `rows` holds."""
    one, other = (torch.where(rows, place, 0)[..., None] for place in (one, other))
    return order.scatter(-1, one, order.gather(-1, other)).scatter(-1, other, order.gather(-1, one))


def _other_corner(colours: Tensor, random: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns random corner colours that differ from the present ones.

    Args:
        colours: (N, balls, K, C) in [0, 1].
        random: Uniform numbers, (N, balls, K).
        low: Lowest values, in the shape of the colours; corners have these and the highest ones.
        high: Highest values.
    """
    channels = colours.shape[-1]
    is_corner = ((colours == low) | (colours == high)).all(-1)
    present = ((colours == high).to(torch.int64) << torch.arange(channels, device=colours.device)).sum(-1)
    index = (random * (2**channels - is_corner.to(torch.int64))).to(torch.int64)
    return torch.where(corner(index + (is_corner & (index >= present)), channels) > 0, high, low)
