"""A small convolutional autoencoder that takes impulses out of images, and the frozen network behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.purifiers.purified import Purified
from registry import DatasetSpec


class ConvolutionBlock(nn.Sequential):
    """A 3 x 3 convolution with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )


class DenoisingAutoencoder(nn.Module):
    """Convolutional autoencoder with skip connections; it predicts what to take away: images - residual(images).

    Two stages of half the resolution each, 0.4 million parameters at width 32. The output is not cut off at 0 and 1,
    so that no gradient is lost; an untrained one is the identity.

    Args:
        channels: Channels of the images.
        width: Channels at full resolution; 2 and 4 times as many below.
    Source: the layout is ours, after Tsai et al. 2025, doi 10.3390/electronics14224384, whose own is not readable; the
        residual as in Zhang et al. 2017, arXiv:1608.03981, section III-A.
    """

    differentiable = True

    def __init__(self, channels: int, *, width: int = 32) -> None:
        super().__init__()
        self.down_full = ConvolutionBlock(channels, width)
        self.down_half = ConvolutionBlock(width, 2 * width, stride=2)
        self.down_quarter = ConvolutionBlock(2 * width, 4 * width, stride=2)
        self.code = ConvolutionBlock(4 * width, 4 * width)
        self.up_half = ConvolutionBlock(6 * width, 2 * width)
        self.up_full = ConvolutionBlock(3 * width, width)
        self.residual = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns restored images, same shape; inputs are (N, C, H, W) in [0, 1]."""
        full = self.down_full(inputs - 0.5)
        half = self.down_half(full)
        hidden = self.code(self.down_quarter(half))
        hidden = self.up_half(torch.cat((half, _grown(hidden, half)), 1))
        hidden = self.up_full(torch.cat((full, _grown(hidden, full)), 1))
        return inputs - self.residual(hidden)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a good denoiser changes little."""
        return inputs


def _grown(hidden: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(hidden, size=like.shape[-2:], mode="nearest")


def build(dataset: DatasetSpec, *, base: nn.Module, width: int = 32) -> Purified:
    """Returns the frozen base model behind a denoising autoencoder."""
    return Purified(DenoisingAutoencoder(dataset.input_shape[0], width=width), base.requires_grad_(False))
