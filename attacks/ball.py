"""The set of inputs an attacker may choose: a norm ball around each original, inside [0, 1], on a support."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.norm_l0 import L0
from attacks.norm_l1 import L1
from attacks.norms import L2, Geometry, Linf
from registry import Budget, Norm, Scope, ThreatModel
from registry.errors import InvalidEntryError

TOLERANCE = 1e-6
"""Rounding that float32 arithmetic may add to a perturbation's size, in input units."""

GEOMETRIES: dict[Norm, Geometry] = {Norm.LINF: Linf(), Norm.L2: L2(), Norm.L1: L1(), Norm.L0: L0()}
"""What each norm means; severities are no distance."""


@dataclass(frozen=True, kw_only=True)
class Ball:
    """Balls around a batch of originals, one for each row.

    With several modalities (5 axes) every modality has a ball of its own, or all share one (scope joint).
    """

    norm: Norm
    """Linf, L2, L1 or L0."""
    originals: Tensor
    """float32 (N, C, H, W) or (N, M, C, H, W) in [0, 1]."""
    eps: Tensor
    """float32, broadcastable to `originals`: shape (1,) * ndim, or (1, M, 1, 1, 1) for a ball of each modality."""
    support: Tensor | None = None
    """bool, shape of `originals`: where changes are allowed; None for everywhere."""

    def take(self, rows: Tensor | slice) -> Ball:
        """Returns the balls of these rows."""
        support = None if self.support is None else self.support[rows]
        return Ball(norm=self.norm, originals=self.originals[rows], eps=self.eps.clone(), support=support)

    def widened(self, factor: Tensor) -> Ball:
        """Returns balls around the same originals whose radii are multiplied, row by row: factor float32 (N,)."""
        eps = self.eps * factor.reshape(-1, *[1] * (self.originals.ndim - 1))
        return Ball(norm=self.norm, originals=self.originals, eps=eps, support=self.support)

    def project(self, points: Tensor) -> Tensor:
        """Returns the points moved back into the ball, the support and [0, 1]; inner points stay bit by bit."""
        if self.support is not None:
            points = torch.where(self.support, points, self.originals)
        return self._geometry.project(points, self.originals, self.eps)

    def lengths(self, points: Tensor) -> Tensor:
        """Returns the norm of each ball's change, broadcastable to the inputs."""
        return self._geometry.size(points - self.originals, self.eps)

    def size(self, points: Tensor) -> Tensor:
        """Returns how far each row is from its original relative to eps: (N,), at most 1 inside the ball."""
        return (self.lengths(points) / self.eps.clamp(min=1e-12)).flatten(1).amax(1).to(points.dtype)

    def contains(self, points: Tensor) -> Tensor:
        """Returns which rows lie in the ball, the support and [0, 1], up to rounding: bool (N,)."""
        inside = (self.lengths(points) <= self.eps + TOLERANCE).flatten(1).all(1)
        inside &= ((points >= 0) & (points <= 1)).flatten(1).all(1)
        if self.support is not None:
            inside &= ((points == self.originals) | self.support).flatten(1).all(1)
        return inside

    def steepest(self, gradient: Tensor) -> Tensor:
        """Returns the direction along which a step of length eps gains most on a linear function.

        Linf: sign of the gradient; L2: unit gradient; L1: sign at its largest value; L0: signs at the best pixels.
        """
        if self.support is not None:
            gradient = gradient * self.support
        return self._geometry.steepest(gradient, self.eps)

    def random(self, noise: Tensor) -> Tensor:
        """Returns starting points in the ball.

        Args:
            noise: Inputs' shape. Linf: uniform in [-1, 1), scaled so that its largest value reaches eps; otherwise
                standard normal, scaled to length eps (L2), projected (L1), or turned into corner colours of the
                pixels where it is largest (L0).
        """
        if self.support is not None:
            noise = noise * self.support
        return self.project(self._geometry.random(noise, self.originals, self.eps))

    @property
    def _geometry(self) -> Geometry:
        return GEOMETRIES[self.norm]


def ball_for(threat_model: ThreatModel, budget: Budget, originals: Tensor, *, support: Tensor | None = None) -> Ball:
    """Returns the balls of a batch under a threat model and budget.

    Raises:
        InvalidEntryError: A norm without a ball here, or radii that do not fit the number of modalities.
    """
    if threat_model.norm not in GEOMETRIES:
        raise InvalidEntryError(f"balls exist for {', '.join(GEOMETRIES)}, got {threat_model.norm}")
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


def whole_box(originals: Tensor) -> Ball:
    """Returns the balls of changes without a size, such as corruptions: every image in [0, 1] is allowed."""
    return Ball(norm=Norm.LINF, originals=originals, eps=originals.new_ones([1] * originals.ndim))


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
