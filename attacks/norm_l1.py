"""Geometry of L1: the exact projection onto the L1 ball within [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.norms import by_ball, per_ball


class L1:
    """Sum of absolute changes.

    Source: Croce & Hein 2021, arXiv:2103.01208, section 2: the effective threat model is the L1 ball within [0, 1],
    and its projection is found by sorting.
    """

    def size(self, change: Tensor, eps: Tensor) -> Tensor:
        return per_ball(by_ball(change.double().abs(), eps).sum(2), change)

    def project(self, points: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns the nearest point of the ball within [0, 1], rounded towards the original.

        Every change shrinks by one threshold and is cut at what [0, 1] leaves to it: the minimum over z of
        |z - point|^2 + 2 threshold |z - original|, whose threshold is the multiplier of the ball's constraint.
        """
        clipped = points.clamp(0, 1)
        radius = eps.double().reshape(len(eps), -1)
        change = by_ball(points.double() - originals.double(), eps)
        start = by_ball(originals.double(), eps)
        size, room = change.abs(), torch.where(change > 0, 1 - start, start)
        outside = torch.minimum(size, room).sum(2) > radius
        if not outside.any():
            return clipped
        shift = torch.zeros_like(size[..., :1])
        shift[outside] = _threshold(size[outside], room[outside], radius.expand(outside.shape)[outside])[:, None]
        shrunk = torch.minimum((size - shift).clamp(min=0), room)
        moved = _rounded(start, change.sign() * shrunk, points.dtype).reshape(points.shape)
        return torch.where(per_ball(outside, points), moved, clipped)

    def steepest(self, gradient: Tensor, eps: Tensor) -> Tensor:
        """Returns the sign of the gradient at its largest value, zero elsewhere."""
        flat = by_ball(gradient, eps)
        largest = flat.abs().argmax(2, keepdim=True)
        return torch.zeros_like(flat).scatter(2, largest, flat.gather(2, largest).sign()).reshape(gradient.shape)

    def random(self, noise: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns the originals plus standard normal noise, which the projection makes sparse."""
        return originals + noise


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Returns the t >= 0 at which sum(min(max(size - t, 0), room)) = radius: float64 (N,).

    As t falls, a value begins to grow at t = size and stops at t = size - room, so the sum is linear between these
    places. It must be over the radius at t = 0.

    Args:
        size: float64 (N, values), absolute changes.
        room: float64 (N, values), how far [0, 1] lets each value go.
        radius: float64 (N,).
    """
    places = torch.cat([size, (size - room).clamp(min=0)], 1)
    places, order = places.sort(dim=1, descending=True, stable=True)
    growing = torch.where(order < size.shape[1], 1.0, -1.0).to(size.dtype).cumsum(1)
    sums = (growing[:, :-1] * -places.diff(dim=1)).cumsum(1)  # at places[:, 1:]
    found = torch.searchsorted(sums, radius[:, None].contiguous()).clamp(max=sums.shape[1] - 1)
    excess = sums.gather(1, found) - radius[:, None] * (1 - 1e-12)  # rounding must not leave the ball
    threshold = places.gather(1, found + 1) + excess / growing.gather(1, found).clamp(min=1)
    return threshold[:, 0]


def _rounded(start: Tensor, change: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns start + change in a lower precision, never farther from the start than asked: sums stay in the ball."""
    ended = (start + change).to(dtype)
    too_far = (ended.double() - start).abs() > change.abs()
    return torch.where(too_far, torch.nextafter(ended, start.to(dtype)), ended)
