"""Feature squeezing: an image is rejected if coarser versions of it get other probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.transforms import BitDepth, MedianFilter
from registry import DatasetSpec

SCALE = 10.0
"""Logits by which the rejection exceeds the best class when the score exceeds the threshold by 1."""
NEVER = 2.0
"""Largest L1 distance of two probability vectors: no image is rejected before the threshold is fixed."""


class FeatureSqueezing(nn.Module):
    """A classifier that compares its probabilities on an image with those on squeezed versions.

    The rejection's logit is that of the best class plus 10 (score - threshold), so that it wins exactly when the score
    is above the threshold, and an attacker gets the gradient of both.

    Args:
        net: Returns logits (N, classes).
        squeezers: Keep shape and range [0, 1]; declared stages, since they may have no true gradient.
    Source: Xu et al. 2018, arXiv:1704.01155, section V: the largest L1 distance over the squeezers.
    """

    threshold: Tensor

    def __init__(self, net: nn.Module, squeezers: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.net = net
        self.squeezers = nn.ModuleList(squeezers)
        self.register_buffer("threshold", torch.tensor(NEVER))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits (N, classes + 1)."""
        logits = self.net(inputs)
        rejection = logits.amax(1) + SCALE * (self._distance(logits, inputs) - self.threshold)
        return torch.cat([logits, rejection[:, None]], 1)

    def detection_score(self, inputs: Tensor) -> Tensor:
        """Returns the largest distance (N,) of the probabilities from those of a squeezed version, in [0, 2]."""
        return self._distance(self.net(inputs), inputs)

    def _distance(self, logits: Tensor, inputs: Tensor) -> Tensor:
        probabilities = logits.softmax(1)
        squeezed = [self.net(squeezer(inputs)).softmax(1) for squeezer in self.squeezers]
        return torch.stack([(probabilities - other).abs().sum(1) for other in squeezed]).amax(0)


def build(dataset: DatasetSpec, *, base: nn.Module, bits: int = 5, median: int = 3) -> FeatureSqueezing:
    """Returns the base model with a detector that reduces the bit depth and takes the median of a neighbourhood."""
    return FeatureSqueezing(base, (BitDepth(bits), MedianFilter(median)))
