"""Noisy attention gates by one kernel of a GPU each way: torch passes over the features once for each operation.

Imported where a gate meets features on a GPU, since Triton comes with torch's CUDA builds for Linux alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_TILE = 2048
"""Values that a program holds: places times channels."""


@triton.jit
def _opening(gate, noise, omega, LEARNED: tl.constexpr, STRAIGHT: tl.constexpr):
    """How far a gate is open, from 0 to 1, and its slope."""
    if LEARNED:
        noise = omega * (noise + noise * noise)
    raw = gate + noise
    opened = tl.minimum(tl.maximum(raw, 0.0), 1.0)
    slope = tl.where(STRAIGHT | ((raw >= 0.0) & (raw <= 1.0)), 1.0, 0.0)
    if LEARNED:
        slope = 3.0 * opened * opened * slope
        opened = opened * opened * opened
    return opened, slope


@triton.jit
def _opened(gate, noise, at, mask, omega, sigma, COUNT: tl.constexpr, LEARNED: tl.constexpr, STRAIGHT: tl.constexpr):
    """A gate under the noise at its place; or, where COUNT is not 0, the mean over so many numbers that all share."""
    if COUNT == 0:
        opened, slope = _opening(gate, sigma * tl.load(noise + at, mask=mask, other=0.0), omega, LEARNED, STRAIGHT)
    else:
        opened, slope = tl.zeros_like(gate), tl.zeros_like(gate)
        for k in range(COUNT):
            one, its_slope = _opening(gate, sigma * tl.load(noise + k), omega, LEARNED, STRAIGHT)
            opened, slope = opened + one, slope + its_slope
        opened, slope = opened / COUNT, slope / COUNT
    return opened, slope


@triton.jit
def _gate(
    inputs, spatial, channel, first, second, omegas, above, out, to_spatial, to_channel, sigma,
    places, channels, COUNT: tl.constexpr, LEARNED: tl.constexpr, STRAIGHT: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place, unit = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    inside = (place < places)[:, None] & (unit < channels)[None, :]
    size = places * channels
    at = row * size + place[:, None] * channels + unit[None, :]  # features lie channel by channel at each place,
    drawn = row * size + unit[None, :] * places + place[:, None]  # noise place by place in each channel
    x = tl.load(inputs + at, mask=inside, other=0.0)
    s = tl.load(spatial + row * places + place, mask=place < places, other=0.0)[:, None]
    c = tl.load(channel + row * channels + unit, mask=unit < channels, other=0.0)[None, :]
    a, a_slope = _opened(x * s, first, drawn, inside, tl.load(omegas), sigma, COUNT, LEARNED, STRAIGHT)
    b, b_slope = _opened(x * c, second, drawn, inside, tl.load(omegas + 1), sigma, COUNT, LEARNED, STRAIGHT)
    if BACKWARD:
        g = tl.load(above + at, mask=inside, other=0.0)
        by_a, by_b = g * x * a_slope * b, g * x * a * b_slope
        tl.store(out + at, g * a * b + by_a * s + by_b * c, mask=inside)
        tl.store(to_spatial + row * places + place, tl.sum(by_a * x, axis=1), mask=place < places)
        part = (row * tl.num_programs(1) + block) * channels + unit
        tl.store(to_channel + part, tl.sum(by_b * x, axis=0), mask=unit < channels)
    else:
        tl.store(out + at, x * a * b, mask=inside)


class _FusedGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, spatial, channel, first, second, omegas, sigma, learned, shared, straight):
        ctx.save_for_backward(inputs, spatial, channel, first, second, omegas)
        ctx.options = sigma, learned, shared, straight
        out = torch.empty_like(inputs)
        _launch(inputs, spatial, channel, first, second, omegas, out, out, out, out, *ctx.options, backward=False)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, above):
        inputs, spatial, channel, *noise = ctx.saved_tensors
        above, out = above.contiguous(memory_format=torch.channels_last), torch.empty_like(inputs)
        to_spatial = torch.empty_like(spatial)
        to_channel = channel.new_empty(len(inputs), _blocks(inputs), inputs.shape[1])
        tensors = inputs, spatial, channel, *noise, above, out, to_spatial, to_channel
        _launch(*tensors, *ctx.options, backward=True)
        return out, to_spatial, to_channel.sum(1), *[None] * 7


def _width(inputs: Tensor) -> int:
    return triton.next_power_of_2(inputs.shape[1])


def _blocks(inputs: Tensor) -> int:
    return triton.cdiv(inputs.shape[2:].numel(), max(1, _TILE // _width(inputs)))


def _launch(inputs, *others, backward: bool) -> None:
    *tensors, sigma, learned, shared, straight = others
    width, places = _width(inputs), inputs.shape[2:].numel()
    sizes = {"BLOCK": max(1, _TILE // width), "WIDTH": width}
    count = tensors[2].numel() if shared else 0
    kind = {"COUNT": count, "LEARNED": learned, "STRAIGHT": straight, "BACKWARD": backward}
    _gate[len(inputs), _blocks(inputs)](inputs, *tensors, sigma, places, inputs.shape[1], **kind, **sizes)


def fused_gate(
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
    """Returns gated features as `defenses.noise.gates.gate_by_passes` does; float32, on a GPU.

    Gradients reach the inputs and the weights, once; they do not reach the scales of the noise.
    """
    if noise is None:  # gates without noise are those of one number that is 0
        noise, shared = (inputs.new_zeros(1),) * 2, True
    parts = (part.contiguous() for part in (spatial, channel, *noise))
    features = inputs.contiguous(memory_format=torch.channels_last)
    return _FusedGate.apply(features, *parts, torch.cat(omegas).detach(), sigma, learned, shared, straight)
