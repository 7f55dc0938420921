"""DeCoWA: gradients over elastically warped copies, each warp drawn and then bent to be a gentle one."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.draws import KeyedRandom
from attacks.stepped import Rows
from attacks.transformed import TransformedMomentum

MESH = 3
"""Control points along each side of the image; the outer ones stay."""


class DeCoWA(TransformedMomentum):
    """Momentum steps along the mean gradient over copies warped by thin-plate splines.

    A copy takes two answers: the first at a warp whose inner control point is shifted at random; the gradient there
    moves the shift so that the objective falls, which keeps what the image shows; the second at that warp counts.

    Args:
        steps: Gradient steps.
        warps: Warped copies of each step.
        shift: Width of the uniform distribution of shifts, where the image is 2 wide.
        rho: Step of a shift against its gradient.
        step_size: Size of a step as a share of eps; None for 1 / steps.
        momentum: Share of the earlier direction that stays.
        eot_samples: Draws averaged in each answer of a stochastic defense.
        last_only: The last point alone is a candidate.
    Source: Lin et al. 2024, arXiv:2402.03951, section 3, algorithm 1; 3 x 3 control points. Every image has warps of
        its own, whereas the published code shares one among a batch.
    """

    def __init__(
        self,
        *,
        steps: int = 10,
        warps: int = 20,
        shift: float = 2.0,
        rho: float = 0.01,
        step_size: float | None = None,
        momentum: float = 1.0,
        eot_samples: int = 1,
        last_only: bool = False,
    ) -> None:
        super().__init__(
            steps=steps,
            step_size=step_size,
            momentum=momentum,
            evaluations=2 * warps,
            eot_samples=eot_samples,
            last_only=last_only,
        )
        self._shift, self._rho = shift, rho

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        super().start(rows, rng)
        rows.memory["shift"] = rows.begin.new_zeros(len(rows), (MESH - 2) ** 2, 2)

    def draw(self, rows: Rows, rng: KeyedRandom, place: Tensor) -> None:
        keys = rng.keys(rows.batch.sample_ids, rows.restart, rows.step)
        fresh = (rng.uniform(keys, rows.memory["shift"].shape[1:]) - 0.5) * self._shift
        rows.memory["shift"] = torch.where((place % 2 == 0)[:, None, None], fresh, rows.memory["shift"])

    def transform(self, points: Tensor, rows: Rows) -> Tensor:
        return warp(points, rows.memory["shift"])

    def learn(self, rows: Rows, gradient: Tensor, place: Tensor) -> None:
        """Bends the shifts after the first answer of a copy; adds the gradient of the second one to the sum."""
        first = place % 2 == 0
        with torch.enable_grad():
            points = rows.memory["point"].detach().requires_grad_()
            shifts = rows.memory["shift"].detach().requires_grad_()
            slope, bend = torch.autograd.grad(warp(points, shifts), (points, shifts), gradient)
        rows.memory["shift"] = torch.where(first[:, None, None], shifts.detach() - self._rho * bend, shifts.detach())
        second = ~first.reshape(-1, *[1] * (slope.ndim - 1))
        rows.memory["sum"] = torch.where(second, rows.memory["sum"] + slope, rows.memory["sum"])


def warp(images: Tensor, shifts: Tensor) -> Tensor:
    """Returns images resampled where a thin-plate spline through shifted control points leads.

    Args:
        images: (N, ..., H, W); axes between are warped alike.
        shifts: (N, inner control points, 2) as x, y, where the image spans -1 to 1; 0 leaves the image as it is.
    """
    height, width = images.shape[-2:]
    basis = _basis(height, width).to(images)
    axes = [
        (torch.arange(size, device=images.device, dtype=images.dtype) * 2 + 1) / size - 1 for size in (width, height)
    ]
    x, y = torch.meshgrid(*axes, indexing="xy")
    grid = torch.stack([x, y], -1) + torch.einsum("pk,nkc->npc", basis, shifts).reshape(-1, height, width, 2)
    flat = images.reshape(len(images), -1, height, width)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False).reshape(images.shape)


@lru_cache(maxsize=8)
def _basis(height: int, width: int) -> Tensor:
    """Returns how far each pixel moves when one inner control point moves by 1: float64 (H * W, inner points).

    A thin-plate spline is linear in the values at its control points. Source: Bookstein 1989, doi 10.1109/34.24792.
    """
    line = torch.linspace(-1, 1, MESH, dtype=torch.float64)
    control = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    axes = [(torch.arange(size, dtype=torch.float64) * 2 + 1) / size - 1 for size in (width, height)]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1).reshape(-1, 2)
    count = len(control)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = _kernel(control, control)
    system[:count, count:] = _affine(control)
    system[count:, :count] = _affine(control).T
    weights = torch.linalg.inv(system)[:, :count]
    moved = torch.cat([_kernel(pixels, control), _affine(pixels)], 1) @ weights
    inner = (control.abs() < 1).all(1)
    return moved[:, inner]


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    squared = torch.cdist(first, second).square()
    return torch.special.xlogy(squared, squared)


def _affine(points: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(points[:, :1]), points], 1)
