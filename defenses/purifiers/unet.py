"""A small residual U-Net from images to images, for denoising and, with a time, for diffusion."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 4
"""Groups of the normalisation; widths are multiples of it."""
TIME = 64
"""Numbers of an embedded time."""


class Block(nn.Module):
    """Two 3 x 3 convolutions with group normalisation, a shortcut, and a time that shifts the features between them.

    Args:
        in_channels: Channels that come in.
        channels: Channels that go out.
        timed: Whether it takes an embedded time.
    Source: Ho et al. 2020, arXiv:2006.11239, appendix B, without attention and dropout.
    """

    def __init__(self, in_channels: int, channels: int, *, timed: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(GROUPS, in_channels), nn.SiLU(), nn.Conv2d(in_channels, channels, 3, 1, 1)
        )
        self.second = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1))
        self.time = nn.Linear(TIME, channels) if timed else None
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1)

    def forward(self, features: Tensor, time: Tensor | None = None) -> Tensor:
        hidden = self.first(features)
        if self.time is not None:
            hidden = hidden + self.time(time)[:, :, None, None]
        return self.second(hidden) + self.shortcut(features)


class ImageUNet(nn.Module):
    """A U-Net whose output has the shape of its input.

    Args:
        channels: Channels of the images.
        widths: Channels at each resolution, the finest first; multiples of 4.
        timed: Whether it takes a time.
    Source: Ronneberger et al. 2015, arXiv:1505.04597; blocks and time as in Ho et al. 2020, arXiv:2006.11239.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], *, timed: bool) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(TIME, TIME), nn.SiLU()) if timed else None
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([Block(widths[0], widths[0], timed=timed)])
        self.down.extend(Block(fine, coarse, timed=timed) for fine, coarse in pairs)
        self.up = nn.ModuleList(Block(coarse + fine, fine, timed=timed) for fine, coarse in reversed(pairs))
        self.head = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels, 3, 1, 1))

    def forward(self, images: Tensor, time: Tensor | None = None) -> Tensor:
        """Returns maps of the images' shape (N, C, H, W).

        Args:
            images: float32 (N, C, H, W).
            time: float32 (N,), in steps; only for a timed network.
        """
        embedded = None if self.embed is None else self.embed(sinusoids(time))
        hidden, kept = self.stem(images), []
        for level, block in enumerate(self.down):
            if level:
                hidden = F.avg_pool2d(hidden, 2, ceil_mode=True, count_include_pad=False)
            hidden = block(hidden, embedded)
            kept.append(hidden)
        kept.pop()
        for block in self.up:
            beside = kept.pop()
            grown = F.interpolate(hidden, scale_factor=2.0)[..., : beside.shape[-2], : beside.shape[-1]]
            hidden = block(torch.cat([grown, beside], 1), embedded)
        return self.head(hidden)


def sinusoids(time: Tensor) -> Tensor:
    """Returns sines and cosines of times (N,) at frequencies from 1 down to 1e-4, (N, 64).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = TIME // 2
    rates = torch.exp(-math.log(1e4) * torch.arange(half, device=time.device) / (half - 1))
    angles = time[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
