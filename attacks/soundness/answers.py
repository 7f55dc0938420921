"""Where probes ask, and how far apart two answers to the same question are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.gradient import random_points
from datasets.batch import Batch
from datasets.tasks.base import Outputs

NOT_A_NUMBER = 1e30
"""Difference of an answer that is finite from one that is not; a record keeps no infinite number."""
ULPS = 8
"""How many units in the last place of an answer its sums may be rounded by."""


def moved(batch: Batch, ball: Ball) -> Batch:
    """Returns the samples at one random point of each ball.

    Stored images lie on multiples of 1/255, where a model can tell that nobody attacks it; these points do not. They
    are the same for a sample wherever it stands.
    """
    keys = KeyedRandom(seed=0, stream=2).keys(batch.sample_ids)
    return batch.with_inputs(random_points(ball, keys).to(batch.inputs.dtype))


def places(batch: Batch, ball: Ball | None) -> tuple[Batch, ...]:
    """Returns the samples as they are, and at one random point of each ball where there is one."""
    return (batch,) if ball is None else (batch, moved(batch, ball))


def flattened(outputs: Outputs) -> Tensor:
    """Returns outputs as (N, values)."""
    tensor = torch.cat([o.flatten(1) for o in outputs.values()], 1) if isinstance(outputs, dict) else outputs
    return tensor.flatten(1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Returns the largest difference of each row of (N, values), (N,): 0 where both are NaN, large where one is."""
    same = (one == other) | (one.isnan() & other.isnan())
    gaps = torch.where(same, torch.zeros_like(one), (one - other).abs())
    return gaps.nan_to_num(nan=NOT_A_NUMBER, posinf=NOT_A_NUMBER).amax(1)


@dataclass(frozen=True, kw_only=True)
class Apart:
    """How far apart answers to the same rows are, at the row where that means most."""

    difference: float
    """Largest difference of two outputs, in units of the outputs."""
    limit: float
    """Up to which it is of no account: 1e-4 of the median spread, or 1e-5 of the row's largest centred output."""
    resolution: float
    """Which the outputs' own precision may hide: some units in the last place of the row's largest output."""
    fine: bool
    """Whether the outputs are finer than float32."""


def apart(outputs: Outputs, *others: Callable[[], Tensor]) -> Apart:
    """Returns how far other answers are from some outputs.

    Scales are those of outputs less their mean over the classes (axis 1), so that what is added to all classes alike
    raises no limit; the difference itself is taken as it is.

    Args:
        outputs: Raw outputs (N, ...), or several by name.
        others: Each returns flattened outputs (n, values) of the first n rows, asked for one after the other.
    """
    one, size = flattened(outputs), _centred(outputs)
    spread = (size.amax(1) - size.amin(1)).median()
    limits = torch.maximum(1e-5 * size.abs().amax(1), 1e-4 * spread)
    differences = torch.zeros_like(limits)
    for ask in others:
        other = ask()
        part = differences[: len(other)]
        part.copy_(torch.maximum(part, distance(one[: len(other)], other)))
    tiny = torch.finfo(limits.dtype).tiny
    row = int((differences / limits.clamp(min=tiny)).argmax())
    largest = float(one[row].nan_to_num(0.0, 0.0, 0.0).abs().max())
    return Apart(
        difference=float(differences[row]),
        limit=float(limits[row]),
        resolution=ULPS * torch.finfo(one.dtype).eps * largest,
        fine=one.dtype == torch.float64 and not torch.equal(one.float().double(), one),
    )


def _centred(outputs: Outputs) -> Tensor:
    """Returns outputs less their mean over axis 1, where that has more than one value, as finite (N, values)."""
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    less = [part - part.mean(1, keepdim=True) if part.shape[1] > 1 else part for part in parts]
    return torch.cat([part.flatten(1) for part in less], 1).nan_to_num(0.0, 0.0, 0.0)
