"""Measures from how many rows on a row's outputs no longer depend on how many are computed together."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from attacks.queries import Answer
from attacks.victim import FEWEST_ROWS, ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs

PROBED = (2, 3, 5, 6, 7, 9, 11, 13, 15, 17, 19, 23, 31, 33, 47, 63, 65, 95)
"""Sizes of a batch that are compared with the largest: odd ones, and the neighbours of powers of two."""


def fewest_steady_rows(victim: ModelVictim, batch: Batch) -> int:
    """Returns the smallest power of two of rows from which outputs and gradients of a row stay the same bits.

    Shorter batches are filled up to so many rows. Kernels differ where a batch is small or is split over threads; where
    nothing under all slots is steady, all slots are returned. The model is probed as a copy, which leaves no state
    behind.

    Args:
        victim: What is to be queried.
        batch: Some samples; they are repeated until all slots are filled.
    """
    slots = victim.slots
    sizes = {size for size in (*PROBED, slots // 2, slots - 1) if FEWEST_ROWS <= size < slots}
    unsteady = _largest_unsteady(victim, batch, sizes)
    return min(slots, 2 ** unsteady.bit_length()) if unsteady else FEWEST_ROWS


def fewest_steady_doublings(victim: ModelVictim, batch: Batch) -> int:
    """Returns the smallest power of two of rows that gives the same bits as all larger ones up to all slots.

    On a GPU kernels are chosen by the number of rows, and few odd numbers get those of a full batch.

    Args:
        victim: What is to be queried; its slots are a power of two.
        batch: Some samples.
    """
    sizes = {1 << power for power in range(1, victim.slots.bit_length() - 1)}
    return 2 * _largest_unsteady(victim, batch, sizes) or FEWEST_ROWS


def _largest_unsteady(victim: ModelVictim, batch: Batch, sizes: set[int]) -> int:
    """Returns the largest of these sizes whose rows differ from those of a full batch, 0 where none does."""
    full = batch.take(torch.arange(victim.slots, device=batch.inputs.device) % len(batch))
    probe = ModelVictim(copy.deepcopy(victim.model), victim.task, slots=victim.slots, randomness=victim.randomness)
    probe.fewest = FEWEST_ROWS
    whole = _answer(probe, full)
    different = (s for s in sorted(sizes, reverse=True) if not _same(_answer(probe, full.take(slice(0, s))), whole, s))
    return next(different, 0)


def _answer(victim: ModelVictim, batch: Batch) -> Answer:
    progress = torch.zeros(len(batch), device=batch.inputs.device)
    return victim.answer(batch, _sum_of_squares, progress, gradient=True)


def _sum_of_squares(outputs: Outputs, batch: Batch, progress: Tensor) -> Tensor:
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum(part.flatten(1).pow(2).sum(1) for part in parts)


def _same(part: Answer, whole: Answer, rows: int) -> bool:
    pairs = zip((part.objective, part.gradient), (whole.objective, whole.gradient), strict=True)
    return all(torch.equal(one, two[:rows]) for one, two in pairs)
