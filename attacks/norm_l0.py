"""Geometry of L0: a number of pixels, each of which may take any value in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.norms import per_ball
from attacks.pixels import from_pixels, largest, to_pixels
from registry.errors import InvalidEntryError


class L0:
    """Number of changed pixels; all channels of a pixel count once."""

    def size(self, change: Tensor, eps: Tensor) -> Tensor:
        changed = (to_pixels(change, eps) != 0).any(-1)
        return per_ball(changed.sum(-1).to(torch.float32), change)

    def project(self, points: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns the nearest point of the ball within [0, 1]."""
        return within(points, originals, eps, torch.zeros_like(originals), torch.ones_like(originals))

    def steepest(self, gradient: Tensor, eps: Tensor) -> Tensor:
        """Returns the sign of the gradient at the pixels with the largest sums over channels, over their number."""
        pixels, count = to_pixels(gradient, eps), _pixels(eps)
        kept = largest(pixels.abs().sum(-1), count)[..., None]
        return from_pixels(pixels.sign() * kept / count[..., None].clamp(min=1), gradient)

    def random(self, noise: Tensor, originals: Tensor, eps: Tensor) -> Tensor:
        """Returns the originals with the pixels of the largest noise set to corner colours: 0 or 1 by its sign."""
        pixels = to_pixels(noise, eps)
        chosen = largest(pixels.abs().amax(-1), _pixels(eps))[..., None] & (pixels != 0)
        colours = (pixels > 0).to(originals.dtype)
        return from_pixels(torch.where(chosen, colours, to_pixels(originals, eps)), originals)


def value_limits(originals: Tensor, most_change: float, inset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Returns the lowest and the highest values, (N, ...), that changed pixels may take.

    Args:
        originals: (N, ...) in [0, 1].
        most_change: Largest change.
        inset: Distance from 0 and 1 that they keep.

    Raises:
        InvalidEntryError: Both are asked for: there may be no such value.
    """
    if most_change < 1 and inset:
        raise InvalidEntryError("values of changed pixels have one limit: give most_change or inset, not both")
    return tuple((originals + change).clamp(inset, 1 - inset) for change in (-most_change, most_change))


def _pixels(eps: Tensor) -> Tensor:
    """Returns the numbers of pixels as (N or 1, balls, 1)."""
    return eps.reshape(len(eps), -1, 1)


def within(points: Tensor, originals: Tensor, eps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns the nearest points with at most eps changed pixels and values from `low` to `high`, as originals are.

    The pixels stay whose removal costs most: their squared change minus what the limits cut off of it.
    Source: Croce & Hein 2019, arXiv:1909.05040, sections 4.1 and 4.2.
    """
    clipped = points.clamp(low, high)
    gain = (clipped.double() - originals) * (2 * points.double() - originals - clipped)  # what is said above, factored
    gain = to_pixels(gain, eps).sum(-1)
    kept, count = gain > 0, _pixels(eps)
    if not (kept.sum(-1, keepdim=True) <= count).all():
        kept = kept & largest(gain, count)
    return torch.where(from_pixels(kept[..., None].expand(*gain.shape, points.shape[-3]), points), clipped, originals)
