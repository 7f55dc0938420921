"""Candidates that a search scored low; only a canonical pass makes them count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.judging import SELECTION, judge_scores
from attacks.queries import Answer
from attacks.shell import WorstCase
from attacks.stepped import Rows
from attacks.victim import ModelVictim
from datasets.batch import Batch
from registry import Randomness

CONFIRM_EVERY = 8
"""Steps of a row between two canonical passes where a pass costs many slots, however few rows it has."""
FEW = 16
"""Slots that a pass may cost at least without being rare."""


@dataclass(kw_only=True)
class Candidates:
    """The best candidate of each row, judged when it may finish its sample and when the row leaves.

    Where the search model is the victim itself, its scores are canonical already. A prepared copy's scores are claims;
    its last candidate is judged even if the copy calls it correct. A stochastic victim's scores are estimates: its
    candidates are judged at the end on draws of their own. Of equal scores the higher objective is the better
    candidate: one draw is soon wrong, and the points that follow are far worse.
    """

    judge: ModelVictim
    """The unprepared victim."""
    scorer: ModelVictim
    """Whose scores the search has seen."""
    batch: Batch
    """All samples of the cell."""
    worst: WorstCase
    """What is known of each sample; updated in place."""
    member: int
    """Index of the member, for attribution."""
    error_samples: set[int]
    """Samples on which the model returned NaN; added to."""
    keeps_last: bool = False
    """Whether the last point of a row is judged beside its best one: of noisy scores the best is partly luck, and a
    gradient attack has converged at its end."""

    def __post_init__(self) -> None:
        self._deterministic = self.judge.randomness is Randomness.NONE
        self._direct = self.scorer is self.judge and self._deterministic
        self._every = CONFIRM_EVERY if self.judge.fewest > FEW else 1
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def begin(self, rows: Rows) -> None:
        """Gives new rows an empty candidate."""
        nothing = torch.full_like(rows.step, 0, dtype=torch.float32)
        rows.candidate = {"sloped": torch.zeros_like(rows.done)}
        if not self._direct:
            rows.candidate |= {
                "point": rows.begin,
                "score": nothing + torch.inf,
                "objective": nothing - torch.inf,
                "step": rows.step - 1,
                "new": torch.zeros_like(rows.done),
            }
        if self.keeps_last:
            rows.candidate["last"] = rows.begin

    def add(self, rows: Rows, points: Tensor, answer: Answer, valid: Tensor) -> None:
        """Takes the scores of one answer; a candidate that may finish its sample is judged."""
        if self._direct:
            keep = valid.nonzero()[:, 0]
            found = (rows.sample[keep], points[keep], answer.score[keep])
            self.worst.offer(*found, self.member, rows.step[keep], rows.restart[keep])
            return
        known = rows.candidate
        lower = (answer.score == known["score"]) & (answer.objective > known["objective"])
        better = valid & (lower | (answer.score < known["score"]))
        known["point"] = torch.where(better.reshape(-1, *[1] * (points.ndim - 1)), points, known["point"])
        known["score"] = torch.where(better, answer.score, known["score"])
        known["objective"] = torch.where(better, answer.objective, known["objective"])
        known["step"] = torch.where(better, rows.step, known["step"])
        known["new"] = known["new"] | better
        if self.keeps_last:
            known["last"] = torch.where(valid.reshape(-1, *[1] * (points.ndim - 1)), points, known["last"])
        if self._deterministic:
            due = known["new"] & (known["score"] <= self.worst.stop_at) & (rows.step % self._every == 0)
            self._judge(rows, due)

    def leave(self, rows: Rows, leaving: Tensor) -> None:
        """Hands over the candidates of rows whose budget is spent.

        Args:
            rows: All rows in flight.
            leaving: bool (N,): the ones that leave.
        """
        if self._direct:
            return
        known = rows.candidate
        last = (leaving & known["new"] & ~self.worst.finished[rows.sample]).nonzero()[:, 0]
        if len(last):
            self._waiting.append((rows.sample[last], known["point"][last], known["step"][last], rows.restart[last]))
        settled = self._settled(rows)
        if settled is not None:
            other = last[(settled[last] != known["point"][last]).flatten(1).any(1)]
            self._waiting.append((rows.sample[other], settled[other], rows.step[other], rows.restart[other]))
        if self._deterministic and sum(len(part[0]) for part in self._waiting) >= self.judge.slots // 4:
            self.finish()

    def _settled(self, rows: Rows) -> Tensor | None:
        """Returns where noisy attacks ended, or None: the last point of a gradient attack, or the best one of a search.

        That one was measured again and again, while the candidate is the luckiest point of all.
        """
        if self.keeps_last:
            return rows.candidate["last"]
        return None if self._deterministic else rows.memory.get("best_point")

    def finish(self) -> None:
        """Judges the candidates that were handed over."""
        if self._waiting:
            handed = tuple(torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            self._offer(*handed)

    def _judge(self, rows: Rows, due: Tensor) -> None:
        if due.any():
            index = due.nonzero()[:, 0]
            known = rows.candidate
            known["new"] = known["new"] & ~due
            self._offer(rows.sample[index], known["point"][index], known["step"][index], rows.restart[index])

    def _offer(self, samples: Tensor, points: Tensor, steps: Tensor, restarts: Tensor) -> None:
        scores = judge_scores(self.judge, self.batch.take(samples).with_inputs(points), SELECTION)
        self.error_samples.update(samples[scores.isnan()].tolist())
        self.worst.offer(samples, points, scores, self.member, steps, restarts)
