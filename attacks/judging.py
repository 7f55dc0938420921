"""The canonical score of a point: on the unprepared victim, over draws that no search has seen."""

from __future__ import annotations

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
"""Draws on which the worst of several candidates is selected."""
FINAL = Judgement(first=1 << 41, count=100)
"""Fresh draws on which the selected candidate is scored again, alone."""


def judge_scores(judge: ModelVictim, batch: Batch, judgement: Judgement) -> Tensor:
    """Returns the canonical score of each row: one pass, or the mean over the draws of a stochastic victim.

    A row on which the model's outputs are not finite has the score NaN.
    """
    return judged(judge, batch, judgement, lambda outputs, rows, share: share * 0).score


def judged(judge: ModelVictim, batch: Batch, judgement: Judgement, objective: Objective) -> Answer:
    """Returns the canonical score of each row, and an objective of the same passes beside it, without gradient."""
    draws = None
    if judge.randomness is not Randomness.NONE:
        draws = Draws(torch.full_like(batch.sample_ids, judgement.first), judgement.count)
    progress = torch.zeros(len(batch), device=batch.inputs.device)
    return judge.answer(batch, objective, progress, gradient=False, draws=draws)
