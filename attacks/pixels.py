"""Inputs as lists of pixels: all channels of a place form one pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.norms import several_balls


def to_pixels(values: Tensor, eps: Tensor) -> Tensor:
    """Returns values of the inputs' shape as (N, balls, pixels of a ball, C).

    Args:
        values: (N, C, H, W) or (N, M, C, H, W).
        eps: Of the ball; tells whether every modality has a ball of its own.
    """
    channels_last = values.movedim(-3, -1)
    balls = eps.shape[1] if several_balls(eps) else 1
    return channels_last.reshape(len(values), balls, -1, channels_last.shape[-1])


def from_pixels(pixels: Tensor, like: Tensor) -> Tensor:
    """Returns pixels (N, balls, pixels of a ball, C) in the shape of `like`."""
    return pixels.reshape(like.movedim(-3, -1).shape).movedim(-1, -3)


def largest(values: Tensor, count: Tensor) -> Tensor:
    """Returns bool: which of the values along the last axis are among the `count` largest; of equals the first.

    Args:
        values: (N, balls, pixels).
        count: Broadcastable to (N, balls, 1).
    """
    order = values.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places) < count


def corner(index: Tensor, channels: int) -> Tensor:
    """Returns the colours with these numbers, each channel 0 or 1: float32 (..., channels) from int64 (...)."""
    return ((index[..., None] >> torch.arange(channels, device=index.device)) & 1).to(torch.float32)
