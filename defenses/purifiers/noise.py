"""Noise that denoisers are trained on: impulses in single pixels, and Gaussian noise. Never attacks."""

from __future__ import annotations

import torch
from torch import Tensor


def impulse_noise(images: Tensor, *, low: float, high: float, clean_share: float, generator: torch.Generator) -> Tensor:
    """Returns images in which single pixels are replaced: half by black or white, half by a random colour.

    Args:
        images: (N, C, H, W) in [0, 1].
        low, high: A pixel of an image is replaced with probability p, drawn for each image from U(low, high).
        clean_share: Share of the images that stay as they are.
        generator: On the CPU; the draws do not depend on the device of the images.
    Source: Tsai et al. 2025, doi 10.3390/electronics14224384, trains on impulse noise; densities and mixture are ours.
    """
    n, channels, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    density = low + (high - low) * uniform(1, 1, 1)
    density = torch.where(uniform(1, 1, 1) < clean_share, 0.0, density)
    replaced = uniform(1, height, width) < density
    salt_or_pepper = (uniform(1, height, width) < 0.5).to(images.dtype).expand(-1, channels, -1, -1)
    colour = uniform(channels, height, width).to(images.dtype)
    value = torch.where(uniform(1, height, width) < 0.5, salt_or_pepper, colour)
    return torch.where(replaced.to(images.device), value.to(images.device), images)


def gaussian_noise(images: Tensor, *, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Returns images with Gaussian noise whose standard deviation is drawn for each image from U(low, high).

    Values are not cut off at 0 and 1, as in the source.

    Args:
        images: (N, C, H, W) in [0, 1].
        low, high: Ends of the standard deviation, in input units.
        generator: On the CPU.
    Source: Zhang et al. 2017, arXiv:1608.03981, section IV-A (DnCNN-B).
    """
    std = low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator)
    return images + (std * torch.randn(images.shape, generator=generator)).to(images)
