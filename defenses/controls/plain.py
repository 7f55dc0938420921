"""Control models of which everything is known: a linear classifier and a constant predictor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from defenses.architectures.normalize import Normalize
from registry import DatasetSpec


class Linear(nn.Module):
    """One matrix from pixels to logits.

    Args:
        size: Number of input values.
        n_outputs: Number of logits.
    """

    def __init__(self, size: int, n_outputs: int) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.head = nn.Linear(size, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.normalize(inputs).flatten(1))


class Constant(nn.Module):
    """Always returns the same logits, learned from the frequencies of the classes."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), -1).to(inputs.dtype)


def linear(dataset: DatasetSpec) -> Linear:
    """Returns a linear classifier."""
    return Linear(math.prod(dataset.input_shape), dataset.n_classes)


def constant(dataset: DatasetSpec) -> Constant:
    """Returns a constant predictor."""
    return Constant(dataset.n_classes)
