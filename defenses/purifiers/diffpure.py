"""DiffPure: noise is added by the forward process of a diffusion model and taken away by its reverse process."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from defenses.purifiers.purified import Purified
from defenses.purifiers.unet import ImageUNet
from registry import DatasetSpec
from registry.errors import InvalidEntryError

TIMES = 1000
"""Steps of the forward process."""
FIRST_BETA, LAST_BETA = 1e-4, 0.02
"""Variance that the first and the last step add; linear between them, as in Ho et al. 2020, section 4."""


def signal_shares() -> Tensor:
    """Returns the share of the signal's variance that is left after 0 to 1000 steps, float32 (1001,).

    Source: Ho et al. 2020, arXiv:2006.11239, equation 4 (alpha bar).
    """
    betas = torch.linspace(FIRST_BETA, LAST_BETA, TIMES, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).to(torch.float32)


class DiffusionPurifier(nn.Module):
    """Diffuses an image to a time and takes it back in a few deterministic steps; the gradient is the true one.

    Args:
        channels: Channels of the images.
        widths: Channels of the U-Net at each resolution.
        until: Time t* to which images are diffused, 1 to 1000.
        steps: Reverse steps, evenly spaced.
    Raises:
        InvalidEntryError: Times or steps are out of range.
    Source: Nie et al. 2022, arXiv:2205.07460, section 3.2; reverse steps: Song et al. 2021 (DDIM), arXiv:2010.02502,
    equation 12 with sigma 0.
    """

    differentiable = True

    def __init__(self, channels: int, widths: tuple[int, ...], *, until: int, steps: int) -> None:
        super().__init__()
        if not 1 <= steps <= until <= TIMES:
            raise InvalidEntryError(f"expected 1 <= steps <= until <= {TIMES}, got steps {steps}, until {until}")
        self.unet = ImageUNet(channels, widths, timed=True)
        self.register_buffer("shares", signal_shares(), persistent=False)
        self.times = [round(until * step / steps) for step in range(steps, -1, -1)]

    def diffuse(self, images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Returns images (N, C, H, W) in [-1, 1] at times (N,), with standard normal noise of their shape mixed in."""
        share = self.shares[times][:, None, None, None]
        return share.sqrt() * images + (1 - share).sqrt() * noise

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns one purified draw of each image, same shape (N, C, H, W), in [0, 1]."""
        start = torch.full((len(inputs),), self.times[0], device=inputs.device)
        images = self.diffuse(2 * inputs - 1, start, torch.randn_like(inputs))
        for now, after in itertools.pairwise(self.times):
            noise = self.unet(images, images.new_full((len(images),), now))
            share, next_share = self.shares[now], self.shares[after]
            clean = (images - (1 - share).sqrt() * noise) / share.sqrt()
            images = next_share.sqrt() * clean + (1 - next_share).sqrt() * noise
        return ((images + 1) / 2).clamp(0, 1)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a purifier's output is meant to be close to them."""
        return inputs


def build(
    dataset: DatasetSpec,
    *,
    base: nn.Module,
    widths: tuple[int, ...] = (8, 16, 32),
    until: int = 75,
    steps: int = 10,
) -> Purified:
    """Returns the base model behind a diffusion purifier."""
    return Purified(DiffusionPurifier(dataset.input_shape[0], widths, until=until, steps=steps), base)
