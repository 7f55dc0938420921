"""Square attack for L2: random search that moves the change's length between square windows."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from attacks.blocks import reserve, step_uniforms
from attacks.draws import KeyedRandom
from attacks.incumbent import Incumbent
from attacks.norms import several_balls
from attacks.square import covered_share, random_signs, span
from attacks.stepped import Query, Rows, where_rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError


class SquareL2:
    """Square attack for L2; every row follows its own schedule.

    Each step fills one window with a bump of two halves of opposite sign, added to what is there, at the length that
    a second, emptied window and the unused part of eps set free.

    Args:
        queries: Evaluations of one run.
        p_init: Share of pixels that the first windows cover.
        restarts: Independent runs.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3 and equation 2. Where [0, 1] cuts a change, the
        next candidate is scaled to eps before it is cut.
    """

    knowledge = Knowledge.SCORE_BASED

    def __init__(self, *, queries: int, p_init: float = 0.8, restarts: int = 1, eot_samples: int = 1) -> None:
        self.steps = queries
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._incumbent = Incumbent(noisy=eot_samples > 1)
        self._shares = torch.tensor([covered_share(p_init, step, queries) for step in range(queries + 1)])

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with small bumps all over the image, or at the worst known candidate.

        Raises:
            InvalidEntryError: The threat model's norm is not L2.
        """
        if rows.ball.norm is not Norm.L2:
            raise InvalidEntryError(f"this Square attack is for L2, got {rows.ball.norm}")
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        tiles = _stretch(rows, _tiles(keys, rows.begin.shape[1:], rng).to(rows.begin))
        known = (rows.begin != rows.ball.originals).flatten(1).any(1) & (rows.restart == 0)
        rows.memory = self._incumbent.start(where_rows(known, rows.begin, tiles))
        rows.memory["random"] = reserve(rows, 5 + math.prod(rows.begin.shape[1:-2]))

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        random = step_uniforms(rows, rng)
        if (rows.step == 0).all():
            return Query(rows.memory["best_point"], gradient=False)
        return self._incumbent.query(rows, _stretch(rows, self._change(rows, random)))

    def _change(self, rows: Rows, random: Tensor) -> Tensor:
        """Returns the best change with one window filled anew and another one emptied."""
        ball, best = rows.ball, rows.memory["best_point"]
        *front, height, width = best.shape[1:]
        edge = window_edge(self._shares.to(best.device)[rows.step], height, width)
        place = (random[:, :4] * torch.stack([height - edge, width - edge] * 2, 1).add(1)).to(torch.int64)
        filled, emptied = (_window(place[:, k : k + 2], edge, front, height, width) for k in (0, 2))
        shape = _placed(bumps(edge, random[:, 4] < 0.5), place, edge, height, width)
        shape = shape.reshape(len(rows), *[1] * len(front), height, width)
        signs = random_signs(random[:, 5:]).reshape(len(rows), *front, 1, 1)
        change = best - ball.originals
        unused = (ball.eps.square() - ball.lengths(best).square()).clamp(min=0)
        channels = front[-1] if several_balls(ball.eps) else math.prod(front)
        available = (_length(change * (filled | emptied)).square() + unused / channels).sqrt()
        there = change * filled
        new = signs * shape + there / _length(there).clamp(min=1e-12)
        new = new / _length(new).clamp(min=1e-12) * available
        return torch.where(filled, new, change * ~emptied)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        self._incumbent.learn(rows, query, answer)
        rows.done = rows.step >= self.steps


def window_edge(share: Tensor, height: int, width: int) -> Tensor:
    """Returns the edge of windows that cover a share of the pixels, int64 (N,): odd, 3 or more where that fits."""
    edge = (share * height * width).sqrt().round().to(torch.int64).clamp(min=3)
    return (edge + 1 - edge % 2).clamp(max=min(height, width))


@cache
def bump(edge: int) -> Tensor:
    """Returns a square of unit length: two halves of opposite sign, each falling off from its centre; (edge, edge)."""
    half = edge // 2
    square = torch.zeros(edge, edge)
    square[:half], square[half:] = _hill(half, edge), -_hill(edge - half, edge)
    return square / square.norm()


def bumps(edge: Tensor, transposed: Tensor) -> Tensor:
    """Returns the bump of each row's edge, int64 (N,), or its transpose, padded with zeros: (N, largest, largest)."""
    sizes = edge.unique().tolist()
    table = torch.zeros(len(sizes), max(sizes), max(sizes))
    for place, size in enumerate(sizes):
        table[place, :size, :size] = bump(size)
    chosen = table.to(edge.device)[torch.searchsorted(torch.tensor(sizes, device=edge.device), edge)]
    return where_rows(transposed, chosen.transpose(1, 2), chosen)


def _hill(height: int, width: int) -> Tensor:
    """Returns sums over k of 1 / (n + 1 - k)^2 that fall off from the centre, of unit length; (height, width)."""
    if not height or not width:
        return torch.zeros(height, width)
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(rows[:, None], columns[None])
    terms = 1 / (torch.arange(int(distance.max()) + 1) + 1.0).square()
    hill = terms.flip(0).cumsum(0).flip(0)[distance]
    return hill / hill.norm()


def _placed(squares: Tensor, place: Tensor, edge: Tensor, height: int, width: int) -> Tensor:
    """Returns squares (N, S, S) at their places, (N, 2 or more) as top and left, on empty images: (N, H, W)."""
    last = squares.shape[1] - 1
    rows = (torch.arange(height, device=place.device)[None] - place[:, :1]).clamp(0, last)
    columns = (torch.arange(width, device=place.device)[None] - place[:, 1:2]).clamp(0, last)
    index = torch.arange(len(squares), device=place.device)[:, None, None]
    inside = span(place[:, 0], edge, height)[:, :, None] & span(place[:, 1], edge, width)[:, None, :]
    return squares[index, rows[:, :, None], columns[:, None, :]] * inside


def _window(place: Tensor, edge: Tensor, front: list[int], height: int, width: int) -> Tensor:
    inside = span(place[:, 0], edge, height)[:, :, None] & span(place[:, 1], edge, width)[:, None, :]
    return inside.reshape(len(place), *[1] * len(front), height, width)


def _length(change: Tensor) -> Tensor:
    """Returns the Euclidean length of each channel, broadcastable to the change."""
    return change.square().sum((-2, -1), keepdim=True).sqrt()


def _stretch(rows: Rows, change: Tensor) -> Tensor:
    """Returns the originals plus the change scaled to length eps, moved into the ball."""
    ball = rows.ball
    if ball.support is not None:
        change = change * ball.support
    length = ball.lengths(ball.originals + change).clamp(min=1e-12)
    return ball.project(ball.originals + change * (ball.eps / length))


def _tiles(keys: Tensor, shape: torch.Size, rng: KeyedRandom) -> Tensor:
    """Returns bumps side by side with random signs and directions, a fifth of the image each: (N, *shape)."""
    *front, height, width = shape
    edge = max(height // 5, 1)
    down, across = height // edge, width // edge
    signs = random_signs(rng.uniform(keys, (*front, down, across)))
    turned = rng.uniform(keys, (down, across), 1) < 0.5
    one = bump(edge).to(keys.device)
    tiles = torch.where(turned[..., None, None], one.T, one).reshape(
        len(keys), *[1] * len(front), down, across, edge, edge
    )
    tiles = (signs[..., None, None] * tiles).transpose(-3, -2).reshape(len(keys), *front, down * edge, across * edge)
    canvas = torch.zeros(len(keys), *shape, device=keys.device)
    top, left = (height - down * edge) // 2, (width - across * edge) // 2
    canvas[..., top : top + down * edge, left : left + across * edge] = tiles
    return canvas
