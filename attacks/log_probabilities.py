"""Models that return probabilities: their logarithm is what attacks ascend, since probabilities saturate."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LogProbabilities(nn.Module):
    """The logarithm of a model's probabilities: the same predictions, with a gradient that does not vanish.

    Args:
        net: Returns probabilities (N, classes).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).clamp_min(torch.finfo(torch.float32).tiny).log()


def are_probabilities(outputs: Tensor) -> bool:
    """Returns whether all rows (N, classes, ...) lie in [0, 1] and sum to 1 over the classes."""
    sums = outputs.sum(1)
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    return inside and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-4))
