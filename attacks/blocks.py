"""Uniform numbers for each step of a row, drawn for a block of steps at a time: drawing costs many small operations."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.stepped import Rows

BLOCK = 50
"""Steps whose random numbers are drawn together."""


def reserve(rows: Rows, count: int) -> Tensor:
    """Returns what `rows.memory["random"]` must hold at the start, for `count` numbers a step."""
    return rows.begin.new_zeros(len(rows), BLOCK, count)


def step_uniforms(rows: Rows, rng: KeyedRandom) -> Tensor:
    """Returns the uniform numbers in [0, 1) of each row's step, keyed by sample, restart and step: (N, count)."""
    place = rows.step % BLOCK
    begins = place == 0
    if begins.any():
        keys = rng.keys(rows.batch.sample_ids[begins], rows.restart[begins], rows.step[begins] + 1)
        block = rows.memory["random"].clone()
        block[begins] = rng.uniform(keys, block.shape[1:])
        rows.memory["random"] = block
    return rows.memory["random"][torch.arange(len(rows), device=place.device), place]
