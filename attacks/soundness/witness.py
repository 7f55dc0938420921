"""Witnesses: images that prove that a sample can be broken if the budget is large enough."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.judging import SELECTION, judge_scores
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs

MOST_SHIFTS = 512
"""Other images that are tried as a witness of each sample."""


def witnesses(victim: ModelVictim, batch: Batch, rows: Tensor, outputs: Outputs) -> Tensor:
    """Returns for each sample the place of an image whose answer is wrong for it: int64 (n,), -1 for none.

    Of a stochastic model's answers the mean over the selection draws counts.

    Args:
        victim: The victim.
        batch: All samples of the cell.
        rows: int64 (n,), the samples in question.
        outputs: Outputs of the victim on all samples.
    """
    task, total = victim.task, len(batch)
    samples = batch.take(rows)
    found = torch.full_like(rows, -1)
    for shift in range(1, min(total, MOST_SHIFTS)):
        open_rows = (found < 0).nonzero()[:, 0]
        if not len(open_rows):
            break
        others = (rows[open_rows] + shift) % total
        theirs = samples.take(open_rows)
        scores = task.score(task.decode(_take(outputs, others), theirs), theirs)
        found[open_rows] = torch.where(scores < task.fail_below, others, found[open_rows])
    has_one = (found >= 0).nonzero()[:, 0]
    if len(has_one):
        candidates = samples.take(has_one).with_inputs(batch.inputs[found[has_one]])
        confirmed = judge_scores(victim, candidates, SELECTION) < task.fail_below
        found[has_one[~confirmed]] = -1
    return found


def _take(outputs: Outputs, rows: Tensor) -> Outputs:
    return {k: v[rows] for k, v in outputs.items()} if isinstance(outputs, dict) else outputs[rows]
