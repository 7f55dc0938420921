"""The attention unit of DGMP's networks: channel and spatial attention, added."""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCTION = 16
"""By how much the channel attention narrows its hidden layer."""


class DualAttention(nn.Module):
    """Features weighted by channel plus the same features weighted by place.

    Args:
        channels: Channels of the features.
    Source: Dhar et al. 2026, doi 10.1016/j.inffus.2025.103822, the SDA unit; its two halves are those of Woo et al.
    2018, arXiv:1807.06521, equations 2 and 3, with SELU in the shared layers and batch normalisation in the spatial
    half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.shared = nn.Sequential(nn.Linear(channels, hidden), nn.SELU(), nn.Linear(hidden, channels))
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the attended features, same shape (N, C, H, W)."""
        by_channel = (self.shared(features.mean((2, 3))) + self.shared(features.amax((2, 3)))).sigmoid()
        pooled = torch.stack([features.mean(1), features.amax(1)], 1)
        return features * (by_channel[:, :, None, None] + self.spatial(pooled).sigmoid())
