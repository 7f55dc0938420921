"""Exhaustive one-pixel attack: every pixel with every colour of a finite set, then the best pixels together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.pixels import corner, from_pixels, largest, to_pixels
from attacks.stepped import Query, Rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError


class OnePixel:
    """Tries every pixel with every corner colour (each channel 0 or 1); exact for one pixel within that finite set.

    Of one channel evenly spaced grey levels may be tried in place of 0 and 1: filters that look for impulses take out
    the extreme values, and let the ones between pass.

    With a budget of several pixels it goes on greedily: the two, three, ... pixels that gained most alone are changed
    together, one query for each number. On a linear model of two classes that is exact, too.

    Args:
        grey_levels: Values from 0 to 1 that are tried of images with one channel.
        queries: Most single pixels that are tried; None for all of them. Fewer are spread evenly over the image.
        eot_samples: Draws averaged in each answer of a stochastic defense.
    """

    knowledge = Knowledge.SCORE_BASED
    restarts = 1

    def __init__(self, *, grey_levels: int = 2, queries: int | None = None, eot_samples: int = 1) -> None:
        if grey_levels < 2:
            raise InvalidEntryError(f"2 or more grey levels can be tried, 0 and 1 among them, got {grey_levels}")
        self.steps = queries or 1  # known exactly once the first rows start
        self.eot_samples = eot_samples
        self._queries, self._levels = queries, grey_levels

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins with an empty table of gains.

        Raises:
            InvalidEntryError: The threat model's norm is not L0.
        """
        if rows.ball.norm is not Norm.L0:
            raise InvalidEntryError(f"the one-pixel attack is for L0, got {rows.ball.norm}")
        pixels = to_pixels(rows.ball.originals, rows.ball.eps)
        _, balls, each, channels = pixels.shape
        tried = self._tried(balls * each * self._colours(channels))
        together = min(int(rows.ball.eps.sum()), balls * each)
        self.steps = tried + max(together - 1, 0)
        rows.memory = {
            "gain": pixels.new_full((len(rows), balls, each), -torch.inf),
            "colour": torch.zeros(len(rows), balls, each, dtype=torch.int64, device=pixels.device),
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        ball = rows.ball
        pixels = to_pixels(ball.originals, ball.eps)
        tried = self._tried(pixels[0, ..., 0].numel() * self._colours(pixels.shape[-1]))
        place, colour = self._single(rows, tried)
        single = torch.arange(pixels[0, ..., 0].numel(), device=place.device) == place[:, None]
        single = single.reshape(pixels.shape[:-1])
        together = (rows.step >= tried)[:, None, None]
        best = self._best(rows, rows.step - tried + 2) if together.any() else single
        chosen = torch.where(together, best, single)
        colours = torch.where(together, rows.memory["colour"], colour[:, None, None])
        changed = torch.where(chosen[..., None], self._colour(colours, pixels.shape[-1]).to(pixels.dtype), pixels)
        return Query(ball.project(from_pixels(changed, ball.originals)), gradient=False)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        gain, colour = rows.memory["gain"].flatten(1), rows.memory["colour"].flatten(1)
        tried = self._tried(gain.shape[1] * self._colours(query.points.shape[-3]))
        place, tried_colour = self._single(rows, tried, step=rows.step - 1)
        before = gain.gather(1, place[:, None])[:, 0]
        better = (rows.step <= tried) & (answer.objective > before)
        shape = rows.memory["gain"].shape
        value = torch.where(better, answer.objective, before)
        rows.memory["gain"] = gain.scatter(1, place[:, None], value[:, None]).reshape(shape)
        value = torch.where(better, tried_colour, colour.gather(1, place[:, None])[:, 0])
        rows.memory["colour"] = colour.scatter(1, place[:, None], value[:, None]).reshape(shape)
        rows.done = rows.step >= self.steps

    def _colours(self, channels: int) -> int:
        return self._levels if channels == 1 else 2**channels

    def _colour(self, index: Tensor, channels: int) -> Tensor:
        """Returns the colours with these numbers: float32 (..., channels) from int64 (...)."""
        return index[..., None] / (self._levels - 1) if channels == 1 else corner(index, channels)

    def _tried(self, candidates: int) -> int:
        return candidates if self._queries is None else min(candidates, self._queries)

    def _single(self, rows: Rows, tried: int, step: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the pixel, among all of a row, and the number of the colour of a step: int64 (N,) each."""
        step = rows.step if step is None else step
        colours = self._colours(rows.begin.shape[-3])
        candidates = rows.memory["gain"][0].numel() * colours if len(rows) else 1
        index = step.clamp(max=tried - 1) * _stride(candidates) % candidates
        return index // colours, index % colours

    def _best(self, rows: Rows, number: Tensor) -> Tensor:
        """Returns the pixels that gained most alone, as many as asked for and as the balls allow: bool like `gain`."""
        gain = rows.memory["gain"]
        fitting = largest(gain, rows.ball.eps.reshape(1, -1, 1)) & gain.isfinite()
        flat = torch.where(fitting, gain, -torch.inf).flatten(1)
        best = largest(flat[:, None], number[:, None, None])[:, 0] & flat.isfinite()
        return best.reshape(gain.shape)


def _stride(candidates: int) -> int:
    """Returns a step through all candidates that spreads any first part of them evenly: near the golden section."""
    stride = max(round(candidates * (math.sqrt(5) - 1) / 2), 1)
    while math.gcd(stride, candidates) > 1:
        stride += 1
    return stride
