"""Input normalisation as the first layer of a model, so that attacks and budgets stay in input units [0, 1]."""

from __future__ import annotations

from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation, the same for all channels.

    One pair of constants serves every data set: the grey and colour images of the suite lie in [0, 1], and batch
    normalisation behind it takes up what is left. The constants are code, not weights.

    Args:
        mean: In input units [0, 1].
        std: In input units, above 0.
    """

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"
