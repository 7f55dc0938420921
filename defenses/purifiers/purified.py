"""A network behind a purifier, with the parts that attackers may ask for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Split
from defenses.stages import Preprocessed

ROWS = 64
"""Images that are purified at once where quality is measured."""


class Purified(Preprocessed):
    """A network behind a purifier: net(purifier(inputs)); attackers may aim at its restored images.

    Args:
        transform: The purifier; keeps the shape. Those that predict what to take away may leave [0, 1] a little.
        net: The network behind it.
    """

    def bare(self) -> nn.Module:
        """Returns the network without the purifier: raw logits from images."""
        return self.net

    def mechanism(self) -> nn.Module:
        """Returns the map from images to restored images, float32 (N, C * H * W): what the network is protected by.

        A random purifier's is random, too: one draw a call.
        """
        return nn.Sequential(self.transform, nn.Flatten())


class LatentPurified(Purified):
    """A network behind a purifier that passes through a latent code; the purifier has a method `mean(inputs)`."""

    def mechanism(self) -> nn.Module:
        """Returns the map from images to the mean of the latent code, float32 (N, D)."""
        return LatentMean(self.transform)


class LatentMean(nn.Module):
    """The mean of a purifier's latent code as a module of its own.

    Args:
        purifier: Has a method `mean(inputs)`.
    """

    def __init__(self, purifier: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier

    def forward(self, inputs: Tensor) -> Tensor:
        return self.purifier.mean(inputs)


def psnr(restored: Tensor, originals: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image in dB, (N,); images are in [0, 1].

    An exact copy has 100 dB: the mean squared error is not taken below 1e-10.
    """
    error = F.mse_loss(restored, originals, reduction="none").flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


@torch.no_grad()
def mean_psnr(purifier: nn.Module, split: Split, device: str) -> float:
    """Returns the mean PSNR in dB between the images of a split and what a purifier in eval mode makes of them."""
    found = []
    for start in range(0, len(split), ROWS):
        inputs = split.take(slice(start, start + ROWS)).inputs.to(device)
        found.append(psnr(purifier(inputs), inputs))
    return float(torch.cat(found).mean())
