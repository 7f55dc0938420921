"""Randomised smoothing: a network on noisy inputs, and what the noise proves about its score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from datasets.batch import Batch
from defenses.architectures import default
from registry import Budget, DatasetSpec, Norm

DRAWS = 1000
"""Noisy copies of each sample behind a certificate."""
CONFIDENCE = 0.001
"""Chance that the certificate of a sample is too high."""
CHUNK = 64
"""Rows of one forward pass."""
STREAM = 9
"""Keeps the draws of certificates apart from those of attacks and of scores."""


class Smoothed(nn.Module):
    """A network whose input gets Gaussian noise, in training and at inference.

    One call is one draw; the smoothed classifier of the paper is the majority vote of many.

    Args:
        net: Returns logits.
        sigma: Standard deviation of the noise, in input units.
    """

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs + self.sigma * torch.randn_like(inputs))

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"


def build(dataset: DatasetSpec, *, sigma: float, width: int | None = None) -> Smoothed:
    """Returns the default architecture of the data set behind Gaussian noise."""
    return Smoothed(default.build(dataset, width=width), sigma)


def certify(model: Smoothed, batch: Batch, budgets: Sequence[Budget]) -> Tensor:
    """Returns lower bounds of the probability that a draw is right, anywhere in the ball.

    A probability of at least p under the noise is at least cdf(quantile(p) - r / sigma) after any change of Euclidean
    length r. The majority vote of many draws is right within the ball where the bound is above 1/2: that is the
    certificate of the paper, r < sigma * quantile(p). Balls of other norms stand for the Euclidean ones around them.

    Args:
        model: The noisy network.
        batch: Labelled samples.
        budgets: Linf, L2, L1 or L0.

    Returns:
        float32 (budgets, N); each sample's are too high with a chance of at most `CONFIDENCE`.
    Source: Cohen et al. 2019, arXiv:1902.02918, theorem 1 and section 3.2.2. The label is the class to certify, so
    that the first draws, which choose one, fall away.
    """
    at_least = lower_confidence(count_right(model, batch, DRAWS).cpu().numpy(), DRAWS)
    rows = []
    for budget in budgets:
        radius = euclidean_radius(budget, batch.inputs.shape[1:])
        rows.append(stats.norm.cdf(stats.norm.ppf(at_least) - radius / model.sigma))
    return torch.from_numpy(np.stack(rows)).float().to(batch.inputs.device)


def count_right(model: nn.Module, batch: Batch, draws: int) -> Tensor:
    """Returns how many of the draws classify each sample as its label, int64 (N,); the same for every batch."""
    random = KeyedRandom(seed=0, stream=STREAM)
    right = torch.zeros(len(batch), dtype=torch.int64, device=batch.inputs.device)
    rows = torch.arange(len(batch), device=batch.inputs.device).repeat_interleave(draws)
    draw = torch.arange(draws, device=rows.device).repeat(len(batch))
    for part, numbers in zip(rows.split(CHUNK), draw.split(CHUNK), strict=True):
        some = batch.take(part)
        with torch.no_grad(), KeyedNoise(random.keys(some.sample_ids, numbers)):
            hit = model(some.inputs).argmax(1) == some.targets["label"]
        right.index_add_(0, part, hit.to(right.dtype))
    return right


def lower_confidence(right: np.ndarray, draws: int) -> np.ndarray:
    """Returns the lower end of the one-sided Clopper-Pearson interval of each share of the draws, float64 (N,)."""
    low = stats.beta.ppf(CONFIDENCE, np.maximum(right, 1), draws - right + 1)
    return np.where(right > 0, low, 0.0)


def euclidean_radius(budget: Budget, shape: Sequence[int]) -> float:
    """Returns the radius of the smallest Euclidean ball around a ball of inputs in [0, 1].

    Args:
        budget: Norm and eps.
        shape: (C, H, W) of the inputs.
    """
    size = math.prod(shape)
    if budget.norm is Norm.LINF:
        return budget.size * math.sqrt(size)
    if budget.norm is Norm.L0:
        return math.sqrt(min(budget.size * shape[0], size))
    return budget.size  # an L1 ball lies inside the Euclidean one of its radius
