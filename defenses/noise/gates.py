"""How noisy attention gates open: by passes of torch, or by one kernel of a GPU that is tried against them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

from attacks.hardware import triton_kernel

_logger = logging.getLogger(__name__)

NODES = tuple(NormalDist().inv_cdf((k + 0.5) / 32) for k in range(32))
"""Standard Gaussian numbers of equal weight: the middles of 32 equally likely parts. Gates have kinks, which suit them
better than the nodes of a polynomial quadrature."""

ROUNDING = 1e-5
"""By how much a kernel's gated features may differ from those of torch's passes, and ten times as much its gradients,
of inputs and gradients of about 1."""

Gate = Callable[..., Tensor]
"""`gate(inputs, spatial, channel, noise, omegas, sigma=..., learned=..., shared=..., straight=...)`, as
`gate_by_passes`."""


def gate_by_passes(
    inputs: Tensor,
    spatial: Tensor,
    channel: Tensor,
    noise: tuple[Tensor, Tensor] | None,
    omegas: tuple[Tensor, Tensor],
    *,
    sigma: float,
    learned: bool,
    shared: bool = False,
    straight: bool = False,
) -> Tensor:
    """Returns gated features: y = x * clip(x s + m1) * clip(x c + m2), clipped to [0, 1], with noise m.

    Args:
        inputs: (N, C, H, W), x.
        spatial: (N, 1, H, W), the weights s of the places.
        channel: (N, C), the weights c of the channels.
        noise: Standard normal numbers of the two gates, each in the shape of the inputs; None for gates without noise.
        omegas: The scales of the learned noise of the two gates, each (1,).
        sigma: Standard deviation that the numbers n are given.
        learned: Whether m is omega (n + n^2) and the gates' product is cubed, as in LUMAN; else m is n, as in NUMAN.
        shared: Whether `noise` holds, once for each gate, numbers (K,) over which the openings of all places are
            averaged, each gate's on its own.
        straight: Whether clipping passes gradients on as if it did nothing.
    """
    clip = _Straight.apply if straight else _clipped
    gates = inputs * spatial, inputs * channel[:, :, None, None]
    if noise is None:
        openings = [clip(gate) for gate in gates]
    elif shared:
        openings = [
            sum(clip(_noisy(gate, n, omega, sigma, learned)) ** (3 if learned else 1) for n in numbers) / len(numbers)
            for gate, numbers, omega in zip(gates, noise, omegas, strict=True)
        ]
    else:
        openings = [clip(_noisy(*parts, sigma, learned)) for parts in zip(gates, noise, omegas, strict=True)]
    if learned and not shared:
        return inputs * (openings[0] * openings[1]) ** 3
    return inputs * openings[0] * openings[1]


def _noisy(gate: Tensor, numbers: Tensor, omega: Tensor, sigma: float, learned: bool) -> Tensor:
    noise = sigma * numbers
    return gate + (omega * (noise + noise.square()) if learned else noise)


def _clipped(values: Tensor) -> Tensor:
    return values.clamp(0, 1)


class _Straight(torch.autograd.Function):
    """Clips to [0, 1], and passes gradients on as they come."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx, above: Tensor) -> Tensor:
        return above


def gate_for(inputs: Tensor, omegas: tuple[Tensor, Tensor]) -> Gate:
    """Returns what gates these inputs: the kernel of their GPU, but for scales in training; else torch's passes."""
    trained = torch.is_grad_enabled() and any(omega.requires_grad for omega in omegas)
    if not inputs.is_cuda or inputs.dtype != torch.float32 or trained:
        return gate_by_passes  # the kernel has no gradient of the scales
    return _kernel_of(inputs.device) or gate_by_passes


@cache
def _kernel_of(device: torch.device) -> Gate | None:
    """Returns the kernel of a GPU; None without Triton, or where it fails its trial there."""
    kernel = triton_kernel("defenses.noise.fused_gates:fused_gate")
    return None if kernel is None else tried(kernel, device)


def tried(kernel: Gate, device: torch.device) -> Gate | None:
    """Returns a kernel whose features and gradients on a device are those of torch's passes, and None in place of any
    other.

    Args:
        kernel: As `gate_by_passes`. It may raise whatever a compiler raises.
        device: Where to try it.
    """
    try:
        gaps = [_gap(kernel, device, *kind) for kind in itertools.product((False, True), repeat=3)]
    except Exception as error:
        _logger.warning("gates open without Triton's kernel, more slowly: %s", error)
        return None
    if max(gaps) <= ROUNDING:  # not so with NaN
        return kernel
    _logger.warning("Triton's kernel opens gates by up to %g otherwise than torch on %s; not used", max(gaps), device)
    return None


def _gap(kernel: Gate, device: torch.device, learned: bool, shared: bool, straight: bool) -> float:
    """Returns the largest difference of features, and of a tenth of gradients, from those of torch's passes."""
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    inputs, spatial, channel = numbers(4, 5, 33, 17), numbers(4, 1, 33, 17).sigmoid(), numbers(4, 5).sigmoid()
    noise = [numbers(7) if shared else numbers(*inputs.shape) for _ in range(2)]
    omegas, above = (numbers(1).abs(), numbers(1).abs()), numbers(*inputs.shape)
    found = []
    for gate in (kernel, gate_by_passes):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in (inputs, spatial, channel)]
        with torch.enable_grad():
            gated = gate(*leaves, noise, omegas, sigma=0.8, learned=learned, shared=shared, straight=straight)
            found.append((gated.detach(), *torch.autograd.grad(gated, leaves, above)))
    gaps = [float((one - other).abs().max()) for one, other in zip(*found, strict=True)]
    return max(gaps[0], 0.1 * max(gaps[1:]))
