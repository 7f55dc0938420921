"""What is asked of a model under attack and what it answers; every query is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from datasets.batch import Batch
from datasets.tasks.base import Outputs

Objective = Callable[[Outputs, Batch, Tensor], Tensor]
"""`objective(outputs, batch, progress) -> (N,)`: what attacks ascend; progress (N,) in [0, 1]."""


class Draws(NamedTuple):
    """Which draws of a defense's noise a query averages over."""

    first: Tensor
    """int64 (N,): index of the first draw of each row."""
    count: int = 1
    """Number of draws."""
    pooled: bool = False
    """Average the draws' probabilities and take one objective of the mean, instead of averaging the objectives."""


class Answer(NamedTuple):
    """What one query returns, row by row; averages over its draws."""

    objective: Tensor
    """float32 (N,)."""
    score: Tensor
    """Task score in [0, 1], float32 (N,); NaN where the model's outputs are not finite."""
    gradient: Tensor | None
    """Gradient of the objective with respect to the inputs, or None when it was not asked for."""


@dataclass
class Spent:
    """Counts of what the attacks used; one instance is shared by a victim and its surrogates."""

    forwards: int = 0
    """Sample-forwards, padding left out."""
    backwards: int = 0
    """Sample-backwards."""
    no_gradient: int = 0
    """Rows whose gradient was exactly zero or not finite."""
