"""Differential evolution over positions and colours of a few pixels, as the one-pixel attack was published."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.blocks import reserve, step_uniforms
from attacks.draws import KeyedRandom
from attacks.stepped import Query, Rows, where_rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError


class OnePixelDE:
    """One-pixel attack by differential evolution; the budget says how many pixels a candidate holds.

    A candidate is, for each pixel, its row, its column and one value for each channel, all on a scale of [0, 1].
    Every generation has one child for each parent, a + weight (b - c) of three different parents, without crossover;
    the child takes its parent's place if its objective is higher. The engine ends a row that broke its sample; a row
    also ends when all parents are the same. Cross-entropy is the published fitness, the true class's probability.

    Args:
        population: Candidates of a generation, at least 3.
        generations: Generations after the first, random one.
        weight: Weight of the difference.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    Source: Su, Vargas, Sakurai 2019, arXiv:1710.08864, section III-C. They do not say what happens to children outside
        of the range: here they are cut off at its ends.
    """

    knowledge = Knowledge.SCORE_BASED
    restarts = 1

    def __init__(
        self, *, population: int = 400, generations: int = 100, weight: float = 0.5, eot_samples: int = 1
    ) -> None:
        if population < 3:
            raise InvalidEntryError(f"differential evolution needs a population of 3 or more, got {population}")
        self.steps = population * (generations + 1)
        self.eot_samples = eot_samples
        self._population = population
        self._weight = weight

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with uniform positions and colours of mean 128 and standard deviation 127 on a scale of 255.

        Raises:
            InvalidEntryError: The threat model's norm is not L0.
        """
        if rows.ball.norm is not Norm.L0:
            raise InvalidEntryError(f"the one-pixel attack is for L0, got {rows.ball.norm}")
        pixels, channels = int(rows.ball.eps.sum()), rows.begin.shape[-3]
        keys = rng.keys(rows.batch.sample_ids, rows.restart, 0)
        places = rng.uniform(keys, (self._population, pixels, 2))
        colours = (128 + 127 * rng.normal(keys, (self._population, pixels, channels), 1)) / 255
        parents = torch.cat([places, colours.clamp(0, 1)], 3)
        rows.memory = {
            "parents": parents,
            "following": parents.clone(),
            "candidate": parents[:, 0],
            "fitness": parents.new_full((len(rows), self._population), -torch.inf),
            "random": reserve(rows, 3),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        parents = rows.memory["parents"]
        row, place = torch.arange(len(rows), device=rows.step.device), rows.step % self._population
        first, second, third = (parents[row, index] for index in _three(step_uniforms(rows, rng), self._population))
        child = (first + self._weight * (second - third)).clamp(0, 1)
        candidate = where_rows(rows.step < self._population, parents[row, place], child)
        rows.memory["candidate"] = candidate
        return Query(rows.ball.project(_painted(rows.ball.originals, candidate)), gradient=False)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory = rows.memory
        row, place = torch.arange(len(rows), device=rows.step.device), (rows.step - 1) % self._population
        parent = memory["fitness"][row, place]
        better = answer.objective > parent
        memory["fitness"][row, place] = torch.where(better, answer.objective, parent)
        memory["following"][row, place] = where_rows(better, memory["candidate"], memory["parents"][row, place])
        ends = place == self._population - 1
        memory["parents"] = where_rows(ends, memory["following"], memory["parents"])
        alike = (memory["parents"] == memory["parents"][:, :1]).flatten(1).all(1)
        rows.done = (rows.step >= self.steps) | (ends & alike)


def _three(random: Tensor, population: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns three different places in the population, int64 (N,) each, from uniform numbers (N, 3)."""
    one, two, three = (random * (population - torch.arange(3, device=random.device))).to(torch.int64).unbind(1)
    two = two + (two >= one)
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    three = three + (three >= low)
    return one, two, three + (three >= high)


def _painted(originals: Tensor, candidate: Tensor) -> Tensor:
    """Returns the originals with a candidate's pixels; modalities lie one below the other, later pixels on top.

    Args:
        originals: (N, C, H, W) or (N, M, C, H, W).
        candidate: (N, pixels, 2 + C) in [0, 1]: row, column, colour.
    """
    channels_last = originals.movedim(-3, -1)
    width, channels = channels_last.shape[-2:]
    pixels = channels_last.reshape(len(originals), -1, channels)
    height = pixels.shape[1] // width
    row = (candidate[..., 0] * height).to(torch.int64).clamp(max=height - 1)
    column = (candidate[..., 1] * width).to(torch.int64).clamp(max=width - 1)
    places = row * width + column
    for number in range(candidate.shape[1]):  # one by one: of two at the same place the later one stays
        index = places[:, number, None, None].expand(-1, 1, channels)
        pixels = pixels.scatter(1, index, candidate[:, number, None, 2:])
    return pixels.reshape(channels_last.shape).movedim(-1, -3)
