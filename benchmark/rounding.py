"""Which scores the rounding of float32 decides: another device may compute them otherwise, and neither is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.judging import Judgement
from attacks.queries import Draws
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs
from registry import Randomness

ROUNDING = 1e-4
"""Difference of the two largest logits, relative to their usual spread, that another device may turn round."""


def judge_with_doubt(judge: ModelVictim, batch: Batch, judgement: Judgement, spread: float) -> tuple[Tensor, Tensor]:
    """Returns the canonical score of each row and the share of its draws that rounding may decide: (N,), (N,).

    Args:
        judge: The defended model.
        batch: Rows to score.
        judgement: Draws of a stochastic defense.
        spread: From `usual_spread`.
    """
    draws = None
    if judge.randomness is not Randomness.NONE:
        draws = Draws(torch.full_like(batch.sample_ids, judgement.first), judgement.count)

    def doubtful(outputs: Outputs, rows: Batch, progress: Tensor) -> Tensor:
        if not _is_logits(outputs):
            return torch.zeros_like(progress)
        largest = outputs.topk(2, dim=1).values
        return (largest[:, 0] - largest[:, 1] <= ROUNDING * spread).to(progress.dtype)

    progress = torch.zeros(len(batch), device=batch.inputs.device)
    answer = judge.answer(batch, doubtful, progress, gradient=False, draws=draws)
    return answer.score, answer.objective


def usual_spread(judge: ModelVictim, batch: Batch) -> float:
    """Returns the median difference between the largest and the smallest logit of a row; 0 where there are none."""
    outputs = judge.outputs(batch)
    return float((outputs.amax(1) - outputs.amin(1)).median()) if _is_logits(outputs) else 0.0


def _is_logits(outputs: Outputs) -> bool:
    return isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1
