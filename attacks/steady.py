"""Measures from how many rows on a row's outputs depend neither on how many are computed together nor on its place."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor

from attacks.queries import Answer
from attacks.victim import FEWEST_ROWS, ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs

_log = logging.getLogger(__name__)

PROBED = (2, 3, 5, 6, 7, 9, 11, 13, 15, 17, 19, 23, 31, 33, 47, 63, 65, 95)
"""Sizes of a batch that are compared with the largest: odd ones, and the neighbours of powers of two."""


def fewest_steady_rows(victim: ModelVictim, batch: Batch) -> int:
    """Returns the smallest power of two of rows from which outputs and gradients of a row stay the same bits, wherever
    in the batch it is.

    Shorter batches are filled up to so many rows. Kernels differ where a batch is small or is split over threads; where
    nothing under all slots is steady, all slots are returned. The model is probed as a copy, which leaves no state
    behind.

    Args:
        victim: What is to be queried.
        batch: Some samples; they are repeated until all slots are filled.
    """
    slots = victim.slots
    full = batch.take(torch.arange(slots, device=batch.inputs.device) % len(batch))
    copied, options = copy.deepcopy(victim.model), {"randomness": victim.randomness, "scored": victim.scored}
    probe = ModelVictim(copied, victim.task, slots=slots, fewest=FEWEST_ROWS, **options)
    whole = _answer(probe, full)
    sizes = sorted({size for size in (*PROBED, slots // 2, slots - 1) if FEWEST_ROWS <= size < slots}, reverse=True)
    if not _steady(probe, full, whole, slots):
        _log.warning("outputs of %s depend on a sample's place in its batch", type(victim.model).__name__)
        return slots
    for size in sizes:
        if not _steady(probe, full, whole, size):
            return min(slots, 2 ** size.bit_length())
    return min(FEWEST_ROWS, slots)


def _answer(victim: ModelVictim, batch: Batch) -> Answer:
    progress = torch.zeros(len(batch), device=batch.inputs.device)
    return victim.answer(batch, _sum_of_squares, progress, gradient=True)


def _sum_of_squares(outputs: Outputs, batch: Batch, progress: Tensor) -> Tensor:
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum(part.flatten(1).pow(2).sum(1) for part in parts)


def _steady(probe: ModelVictim, full: Batch, whole: Answer, size: int) -> bool:
    """Returns whether the first rows are answered as among all, in their own places and each in its neighbour's."""
    rows = torch.arange(size, device=full.inputs.device)
    return all(_same(_answer(probe, full.take(order)), whole, order) for order in (rows, rows.roll(1)))


def _same(part: Answer, whole: Answer, rows: Tensor) -> bool:
    pairs = zip((part.objective, part.gradient), (whole.objective, whole.gradient), strict=True)
    return all(torch.equal(one, two[rows]) for one, two in pairs)
