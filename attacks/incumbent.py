"""The best point so far of a random search, whose value is noisy where the victim is."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.queries import Answer
from attacks.stepped import Query, Rows, where_rows

EVERY = 4
"""Every so many queries the best point of a noisy search is measured again."""


class Incumbent:
    """Keeps the best point of each row in `rows.memory`, as "best_point" and "best".

    The largest of many noisy values is a lucky one, and nothing would ever beat it again. So where answers are means
    of several draws, every fourth query goes to the best point, whose value is the mean of all that were measured.

    Args:
        noisy: Whether the answers of one point differ.
    """

    def __init__(self, *, noisy: bool) -> None:
        self._noisy = noisy

    def start(self, points: Tensor) -> dict[str, Tensor]:
        """Returns what the memory holds at first: the points, (N, ...), without a value, float32 (N,)."""
        none = points.new_zeros(len(points))
        return {"best_point": points, "best": none - torch.inf, "measured": none}

    def query(self, rows: Rows, candidates: Tensor) -> Query:
        """Asks for the candidates, (N, ...), or for the best points at their turn and at the first step."""
        again = self._again(rows.step) | (rows.step == 0)
        return Query(where_rows(again, rows.memory["best_point"], candidates), gradient=False)

    def learn(self, rows: Rows, query: Query, answer: Answer) -> Tensor:
        """Keeps better candidates and the means of what was measured again; returns which rows moved, bool (N,)."""
        memory, again = rows.memory, self._again(rows.step - 1)
        better = ~again & (answer.objective > memory["best"])
        measured = torch.where(better, 1.0, memory["measured"] + again)
        mean = memory["best"] + (answer.objective - memory["best"]) / measured.clamp(min=1)
        memory["best"] = torch.where(better, answer.objective, torch.where(again, mean, memory["best"]))
        memory["measured"] = measured
        memory["best_point"] = where_rows(better, query.points, memory["best_point"])
        return better

    def _again(self, asked: Tensor) -> Tensor:
        return (asked % EVERY == EVERY - 1) if self._noisy else torch.zeros_like(asked, dtype=torch.bool)
