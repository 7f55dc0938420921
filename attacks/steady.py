"""Measures whether a row's outputs depend on how many rows are computed together."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from attacks.queries import Answer
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs


def rows_are_steady(victim: ModelVictim, batch: Batch) -> bool:
    """Returns whether outputs and gradients of a row are the same bits in batches of 2 rows up to all slots.

    Where they are, short batches need no padding. The model is probed as a copy, which leaves no state behind.

    Args:
        victim: What is to be queried.
        batch: Some samples; they are repeated until all slots are filled.
    """
    rows = torch.arange(victim.slots, device=batch.inputs.device) % len(batch)
    full = batch.take(rows)
    probe = ModelVictim(
        copy.deepcopy(victim.model), victim.task, slots=victim.slots, padded=False, randomness=victim.randomness
    )
    whole = _answer(probe, full)
    sizes = {size for size in (2, 3, 7, 16, 33, victim.slots // 2, victim.slots - 1) if 2 <= size < victim.slots}
    return all(_same(_answer(probe, full.take(slice(0, size))), whole, size) for size in sorted(sizes))


def _answer(victim: ModelVictim, batch: Batch) -> Answer:
    progress = torch.zeros(len(batch), device=batch.inputs.device)
    return victim.answer(batch, _sum_of_squares, progress, gradient=True)


def _sum_of_squares(outputs: Outputs, batch: Batch, progress: Tensor) -> Tensor:
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum(part.flatten(1).pow(2).sum(1) for part in parts)


def _same(part: Answer, whole: Answer, rows: int) -> bool:
    pairs = zip((part.objective, part.gradient), (whole.objective, whole.gradient), strict=True)
    return all(torch.equal(one, two[:rows]) for one, two in pairs)
