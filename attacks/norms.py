"""Geometry of the norms: size, projection, steepest direction and random points of the balls around originals."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Geometry(Protocol):
    """What a ball asks of its norm; `eps` has one value for a row, or one for each modality: see `several_balls`."""

    def size(self, change: Tensor, eps: Tensor) -> Tensor:
        """Returns the norm of a change, one value for each ball, broadcastable to the change."""

    def project(self, points: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns the points moved into the ball and [0, 1]; inner points stay bit by bit."""

    def steepest(self, gradient: Tensor, eps: Tensor) -> Tensor:
        """Returns the direction along which a step of length eps gains most on a linear function."""

    def random(self, noise: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns points at the edge of the ball before they are projected; noise has the inputs' shape."""


def several_balls(eps: Tensor) -> bool:
    """Returns whether every modality has a ball of its own: eps of shape (1, M, 1, 1, 1)."""
    return eps.ndim == 5 and eps.shape[1] > 1


def by_ball(values: Tensor, eps: Tensor) -> Tensor:
    """Returns values of the inputs' shape as (N, balls, values of a ball)."""
    return values.reshape(len(values), eps.shape[1] if several_balls(eps) else 1, -1)


def per_ball(values: Tensor, like: Tensor) -> Tensor:
    """Returns one value for each ball, (N, balls), in a shape that broadcasts to the inputs."""
    return values.reshape(*values.shape, *[1] * (like.ndim - 2))


class Linf:
    """Largest change of any value. Source: Madry et al. 2018, arXiv:1706.06083, section 2.1."""

    def size(self, change: Tensor, eps: Tensor) -> Tensor:
        return per_ball(by_ball(change.abs(), eps).amax(2), change)

    def project(self, points: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        low = (originals - eps).clamp_(min=0)
        high = (originals + eps).clamp_(max=1)
        return torch.minimum(torch.maximum(points, low), high)

    def steepest(self, gradient: Tensor, eps: Tensor) -> Tensor:
        """Returns the sign of the gradient."""
        return gradient.sign()

    def random(self, noise: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns noise, uniform in [-1, 1), scaled so that its largest value of a row reaches eps."""
        largest = noise.abs().flatten(1).amax(1).clamp(min=1e-12)
        return originals + eps * (noise / largest.reshape(-1, *[1] * (noise.ndim - 1)))


class L2:
    """Euclidean length of the change.

    The projection clips to [0, 1] before it shortens the change, so the result lies in both sets; it is the nearest
    such point only where nothing is clipped.
    """

    def size(self, change: Tensor, eps: Tensor) -> Tensor:
        axes = tuple(range(2 if several_balls(eps) else 1, change.ndim))
        return change.pow(2).sum(axes, keepdim=True).sqrt()

    def project(self, points: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        points = points.clamp(0, 1)
        change = points - originals
        length = self.size(change, eps)
        scale = torch.where(length > eps, eps / length.clamp(min=1e-12), torch.ones_like(length))
        return torch.where(scale < 1, originals + change * scale, points)

    def steepest(self, gradient: Tensor, eps: Tensor) -> Tensor:
        """Returns the unit gradient; one of tiny values is scaled first, since their squares would vanish."""
        largest = per_ball(by_ball(gradient.abs(), eps).amax(2), gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
        scaled = gradient / largest
        return scaled / self.size(scaled, eps).clamp(min=1e-12)

    def random(self, noise: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns standard normal noise scaled to length eps."""
        return originals + eps * (noise / self.size(noise, eps).clamp(min=1e-12))
