"""The canonical score of a point: on the unprepared victim, over draws that no search has seen."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.queries import Answer, Draws, Objective
from attacks.victim import ModelVictim
from datasets.batch import Batch
from registry import Randomness


@dataclass(frozen=True)
class Judgement:
    """How a stochastic victim is scored: on which draws, and how many of them."""

    first: int
    """Index of the first draw; ranges of different purposes never meet."""
    count: int
    """Number of draws."""


SELECTION = Judgement(first=1 << 40, count=32)
"""Draws on which the worst of several candidates is selected; each budget of a run has a range of its own."""
AGAIN = Judgement(first=(1 << 40) + (1 << 39), count=32)
"""Draws on which candidates of different runs are compared; each pair has a range of its own."""
FINAL = Judgement(first=1 << 41, count=100)
"""Fresh draws on which the selected candidate is scored again, alone."""


def at_turn(victim: ModelVictim, turn: int) -> ModelVictim:
    """Returns a victim, with the same model and counter, that judges on another range of each judgement's draws.

    The lowest of many noisy scores is a lucky one on its own draws, and nothing would ever be lower there.

    Args:
        victim: The victim; a deterministic one is returned itself.
        turn: Number of the range; 0 is where a victim judges by default.
    """
    if victim.randomness is Randomness.NONE:
        return victim
    other = copy.copy(victim)
    other.turn = turn
    return other


def judge_scores(judge: ModelVictim, batch: Batch, judgement: Judgement, turns: Tensor | None = None) -> Tensor:
    """Returns the canonical score of each row: one pass, or the mean over the draws of a stochastic victim.

    A row on which the model's outputs are not finite has the score NaN.

    Args:
        judge: The unprepared victim.
        batch: The rows, (N, ...).
        judgement: Which draws, and how many.
        turns: int64 (N,), the range of the judgement's draws on which each row is scored; the judge's own by default.
    """
    return judged(judge, batch, judgement, lambda outputs, rows, share: share * 0, turns).score


def judged(
    judge: ModelVictim, batch: Batch, judgement: Judgement, objective: Objective, turns: Tensor | None = None
) -> Answer:
    """Returns the canonical score of each row, and an objective of the same passes beside it, without gradient."""
    draws = None
    if judge.randomness is not Randomness.NONE:
        if turns is None:
            turns = torch.full_like(batch.sample_ids, judge.turn)
        draws = Draws(judgement.first + judgement.count * turns, judgement.count)
    progress = torch.zeros(len(batch), device=batch.inputs.device)
    return judge.answer(batch, objective, progress, gradient=False, draws=draws)
