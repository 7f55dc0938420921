"""Which scores the rounding of float32 decides: another device may compute them otherwise, and neither is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.judging import Judgement, judged
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs, Task
from datasets.tasks.classification import weighted_share

ROUNDING = 1e-4
"""Margin of a decision, relative to the usual one, that another device may turn round."""


def judge_with_doubt(judge: ModelVictim, batch: Batch, judgement: Judgement, usual: float) -> tuple[Tensor, Tensor]:
    """Returns the canonical score of each row and the share of it that rounding may decide: (N,), (N,).

    Args:
        judge: The defended model.
        batch: Rows to score.
        judgement: Draws of a stochastic defense.
        usual: From `usual_margin`.
    """

    def doubtful(outputs: Outputs, rows: Batch, progress: Tensor) -> Tensor:
        margins = decision_margins(outputs, judge.task)
        if margins is None:
            return torch.zeros_like(progress)
        close = (margins < ROUNDING * usual).to(progress)
        return weighted_share(close, rows) if hasattr(judge.task, "n_labels") else close.mean(1)

    answer = judged(judge, batch, judgement, doubtful)
    return answer.score, answer.objective


def usual_margin(judge: ModelVictim, batch: Batch) -> float:
    """Returns the median margin of a model's decisions, in units of its logits; 0 where its outputs are no logits."""
    margins = decision_margins(judge.outputs(batch), judge.task)
    return 0.0 if margins is None else float(margins.median())


def decision_margins(outputs: Outputs, task: Task) -> Tensor | None:
    """Returns the distance of each decision of a row from the other one, (N, decisions); None for other outputs.

    One label: between the two largest logits. Several labels: of each logit from 0.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return None
    if hasattr(task, "n_labels"):
        return outputs.abs()
    largest = outputs.topk(2, dim=1).values
    return largest[:, :1] - largest[:, 1:]
