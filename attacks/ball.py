"""The set of inputs an attacker may choose: a norm ball around each original, inside [0, 1], on a support."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from registry import Budget, Norm, Scope, ThreatModel
from registry.errors import InvalidEntryError

TOLERANCE = 1e-6
"""Rounding that float32 arithmetic may add to a perturbation's size, in input units."""


@dataclass(frozen=True, kw_only=True)
class Ball:
    """Balls around a batch of originals, one for each row.

    With several modalities (5 axes) every modality has a ball of its own, or all share one (scope joint).
    """

    norm: Norm
    """Linf or L2."""
    originals: Tensor
    """float32 (N, C, H, W) or (N, M, C, H, W) in [0, 1]."""
    eps: Tensor
    """float32, broadcastable to `originals`: shape (1,) * ndim, or (1, M, 1, 1, 1)."""
    support: Tensor | None = None
    """bool, shape of `originals`: where changes are allowed; None for everywhere."""

    def take(self, rows: Tensor | slice) -> Ball:
        """Returns the balls of these rows."""
        support = None if self.support is None else self.support[rows]
        return Ball(norm=self.norm, originals=self.originals[rows], eps=self.eps.clone(), support=support)

    def project(self, points: Tensor) -> Tensor:
        """Returns the points moved back into the ball, the support and [0, 1]; inner points stay bit by bit.

        Source: Madry et al. 2018, arXiv:1706.06083, section 2.1.
        """
        if self.support is not None:
            points = torch.where(self.support, points, self.originals)
        if self.norm is Norm.LINF:
            low = (self.originals - self.eps).clamp_(min=0)
            high = (self.originals + self.eps).clamp_(max=1)
            return torch.minimum(torch.maximum(points, low), high)
        points = points.clamp(0, 1)  # clipping first shortens the change, so the scaled one stays in [0, 1]
        change = points - self.originals
        length = self._length(change)
        scale = torch.where(length > self.eps, self.eps / length.clamp(min=1e-12), torch.ones_like(length))
        return torch.where(scale < 1, self.originals + change * scale, points)

    def size(self, points: Tensor) -> Tensor:
        """Returns how far each row is from its original relative to eps: (N,), at most 1 inside the ball."""
        change = (points - self.originals).abs()
        if self.norm is Norm.LINF:
            excess = change / self.eps.clamp(min=1e-12)
            return torch.where(change > 0, excess, torch.zeros_like(excess)).flatten(1).amax(1)
        return (self._length(change) / self.eps.clamp(min=1e-12)).flatten(1).amax(1)

    def contains(self, points: Tensor) -> Tensor:
        """Returns which rows lie in the ball, the support and [0, 1], up to rounding: bool (N,)."""
        change = (points - self.originals).abs()
        size = change if self.norm is Norm.LINF else self._length(change)
        inside = (size <= self.eps + TOLERANCE).flatten(1).all(1)
        inside &= ((points >= 0) & (points <= 1)).flatten(1).all(1)
        if self.support is not None:
            inside &= ((change == 0) | self.support).flatten(1).all(1)
        return inside

    def steepest(self, gradient: Tensor) -> Tensor:
        """Returns the direction of steepest ascent in the norm: sign of the gradient, or the unit gradient."""
        if self.support is not None:
            gradient = gradient * self.support
        if self.norm is Norm.LINF:
            return gradient.sign()
        return gradient / self._length(gradient).clamp(min=1e-12)

    def random(self, noise: Tensor) -> Tensor:
        """Returns starting points in the ball.

        Args:
            noise: Linf: uniform in [-1, 1), scaled so that its largest value reaches eps; L2: standard normal,
                scaled to length eps.
        """
        if self.norm is Norm.LINF:
            largest = noise.abs().flatten(1).amax(1).clamp(min=1e-12)
            direction = noise / largest.reshape(-1, *[1] * (noise.ndim - 1))
        else:
            direction = noise / self._length(noise).clamp(min=1e-12)
        return self.project(self.originals + self.eps * direction)

    def _length(self, change: Tensor) -> Tensor:
        """Euclidean length of each ball's change, broadcastable to the inputs."""
        axes = tuple(range(2, change.ndim)) if self.eps.numel() > 1 else tuple(range(1, change.ndim))
        return change.pow(2).sum(axes, keepdim=True).sqrt()


def ball_for(threat_model: ThreatModel, budget: Budget, originals: Tensor, *, support: Tensor | None = None) -> Ball:
    """Returns the balls of a batch under a threat model and budget.

    Raises:
        InvalidEntryError: A norm without a ball here, or radii that do not fit the number of modalities.
    """
    if threat_model.norm not in (Norm.LINF, Norm.L2):
        raise InvalidEntryError(f"balls exist for Linf and L2, got {threat_model.norm}")
    values = budget.values
    each = originals.ndim == 5 and threat_model.scope is Scope.EACH
    if len(values) == 1 and each:
        values = values * originals.shape[1]
    if len(values) == 1:
        eps = originals.new_tensor(values[0]).reshape([1] * originals.ndim)
    elif each and originals.shape[1] == len(values):
        eps = originals.new_tensor(values).reshape(1, -1, 1, 1, 1)
    else:
        raise InvalidEntryError(
            f"eps has {len(values)} values, one for each modality, but inputs are {tuple(originals.shape)} "
            f"and the scope is {threat_model.scope}"
        )
    return Ball(norm=threat_model.norm, originals=originals, eps=eps, support=support)


def support_mask(threat_model: ThreatModel, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
    """Returns where a threat model allows changes: bool of the inputs' shape, or None for everywhere.

    Args:
        threat_model: Its `support` is read.
        inputs: (N, C, H, W) or (N, M, C, H, W).
        mask: Label map int64 (N, H, W), 0 the background; needed for outside-mask and inside-mask.
    """
    if threat_model.support == "everything":
        return None
    if threat_model.support.startswith("modality:"):
        index = int(threat_model.support.removeprefix("modality:"))
        if inputs.ndim != 5 or index >= inputs.shape[1]:
            raise InvalidEntryError(f"support {threat_model.support} does not fit inputs {tuple(inputs.shape)}")
        allowed = torch.zeros_like(inputs, dtype=torch.bool)
        allowed[:, index] = True
        return allowed
    if mask is None:
        raise InvalidEntryError(f"support {threat_model.support} needs a mask in the targets")
    inside = (mask > 0).reshape(len(mask), *[1] * (inputs.ndim - 3), *mask.shape[1:])
    allowed = inside if threat_model.support == "inside-mask" else ~inside
    return allowed.expand_as(inputs).clone()
