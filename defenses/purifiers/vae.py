"""A small variational autoencoder for images, and a purifier made of its parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.purifiers.attention import DualAttention

COARSEST = 4
"""Edge length in pixels down to which encoders halve an image."""
WIDTHS = (32, 64, 128)
"""Channels after each halving; the last ones serve any further halving."""
LOG_VARIANCE = 8.0
"""Bound of a log variance: exp of much more overflows early in training."""


def sizes_of(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the sizes of the feature maps, from the image's own to the coarsest; halves are rounded up."""
    sizes = [(height, width)]
    while max(sizes[-1]) > COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def widths_of(levels: int, widest: int = WIDTHS[-1]) -> list[int]:
    """Returns the channels after each of `levels` halvings, none above `widest`."""
    return [min(widest, WIDTHS[min(level, len(WIDTHS) - 1)]) for level in range(levels)]


class Crop(nn.Module):
    """Cuts feature maps to a size, from their upper left corner: what doubling a rounded half leaves over.

    Args:
        size: Height and width to keep.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        return features[..., : self.size[0], : self.size[1]]


class Encoder(nn.Module):
    """Maps images to a normal distribution of latent codes.

    Args:
        shape: (C, H, W) of the images.
        latent: Numbers of a code.
    Source: Dhar et al. 2026, doi 10.1016/j.inffus.2025.103822, in small: one head, an attention unit per resolution.
    """

    def __init__(self, shape: tuple[int, ...], latent: int) -> None:
        super().__init__()
        sizes = sizes_of(*shape[1:])
        layers, channels = [], shape[0]
        for width in widths_of(len(sizes) - 1):
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SELU()]
            layers.append(DualAttention(width))
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels * sizes[-1][0] * sizes[-1][1], 2 * latent)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the codes, each (N, latent); inputs are (N, C, H, W) in [0, 1]."""
        mean, log_variance = self.head(self.layers(2 * inputs - 1).flatten(1)).chunk(2, 1)
        return mean, LOG_VARIANCE * (log_variance / LOG_VARIANCE).tanh()


class Generator(nn.Module):
    """Maps latent codes to images.

    Args:
        shape: (C, H, W) of the images.
        latent: Numbers of a code.
        n_labels: Classes whose weights are appended to each code; 0 for none.
        widest: Most channels of a layer.
        attention: Put an attention unit in front of every convolution.
    Source: as `Encoder`; one branch of transposed convolutions.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        *,
        n_labels: int = 0,
        widest: int = WIDTHS[-1],
        attention: bool = True,
    ) -> None:
        super().__init__()
        sizes = sizes_of(*shape[1:])
        widths = widths_of(len(sizes) - 1, widest)[::-1]
        widths.append(widths[-1] // 2)
        self.latent, self.n_labels, self.coarsest = latent, n_labels, (widths[0], *sizes[-1])
        self.expand = nn.Linear(latent + n_labels, widths[0] * sizes[-1][0] * sizes[-1][1])
        layers: list[nn.Module] = []
        for level, size in enumerate(sizes[-2::-1]):
            width, after = widths[level], widths[level + 1]
            layers += [DualAttention(width)] if attention else []
            layers += [nn.ConvTranspose2d(width, after, 4, 2, 1, bias=False), Crop(size)]
            layers += [nn.BatchNorm2d(after), nn.SELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], shape[0], 3, 1, 1))

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns images (N, C, H, W) in [0, 1] of codes (N, latent) and, where it has any, label weights (N, K).

        Without label weights all classes weigh the same.
        """
        if self.n_labels:
            if labels is None:
                labels = codes.new_full((len(codes), self.n_labels), 1 / self.n_labels)
            codes = torch.cat([codes, labels.to(codes.dtype)], 1)
        return self.layers(F.selu(self.expand(codes)).unflatten(1, self.coarsest)).sigmoid()


class LatentPurifier(nn.Module):
    """Draws a code from what an encoder says of an image, and returns what a generator makes of it.

    The gradient is the true one: the draw is mean + deviation * noise.

    Args:
        encoder: Maps images to mean and log variance.
        generator: Maps codes to images.
    """

    differentiable = True

    def __init__(self, encoder: Encoder, generator: Generator) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns one purified draw of each image, same shape, in [0, 1]."""
        return self.restore(inputs, labels)[0]

    def restore(self, inputs: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns one purified draw of each image, and mean and log variance of its code."""
        mean, log_variance = self.encoder(inputs)
        codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.generator(codes, labels), mean, log_variance

    def mean(self, inputs: Tensor) -> Tensor:
        """Returns the mean code of each image, (N, latent)."""
        return self.encoder(inputs)[0]

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a purifier's output is meant to be close to them."""
        return inputs
